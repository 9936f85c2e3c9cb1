"""What the ledger says of a call is what the server counted: streamed, whole, cut by the client, cut by the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from fakes.anthropic import anthropic_fake
from fakes.asking import chat, replaced, upstream_at
from fakes.bedrock import bedrock_fake
from fakes.openai import openai_fake
from fakes.server import USAGE_SHAPES, Answer, Fake
from fakes.vertex import vertex_fake

from penstock.core.types import Attempt, Delta, Request
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace.events import Ended
from penstock.upstream import Dispatch, routes_by_model

OTHERS = {
    "anthropic": (anthropic_fake, {}, "end_turn"),
    "bedrock": (bedrock_fake, {"region": "us-east-1", "api_key": "id:secret", "models": ["m"]}, "end_turn"),
    "vertex": (vertex_fake, {"project": "p", "api_key": "key", "models": ["m"]}, "STOP"),
}
WORDS = ("one", " two", " three", " four", " five")


class Entries:
    """A ledger that keeps what it is given."""

    def __init__(self) -> None:
        self.entries: list[Ended] = []

    def record(self, ended: Ended) -> None:
        self.entries.append(ended)

    async def close(self) -> None:
        return None


@asynccontextmanager
async def serving(kind: str, answer: Answer, *, owned_by: str = "") -> AsyncIterator[tuple[Fake, Pipeline, Entries]]:
    """A pipeline over an upstream of this kind; nothing is tried twice."""
    started = openai_fake(answer, owned_by=owned_by) if kind == "openai" else OTHERS[kind][0](answer)
    settings = {} if kind == "openai" else OTHERS[kind][1]
    async with started as fake, upstream_at(fake.url, kind=kind, **settings) as upstream:
        upstreams, ledger = {"there": upstream}, Entries()
        yield fake, Pipeline(dispatch=Dispatch(upstreams), router=FixedRouter(routes_by_model(upstreams)), ledger=ledger), ledger


async def attempt_of(pipeline: Pipeline, ledger: Entries, request: Request, *, leave_after: int | None = None) -> Attempt:
    """The row of one request, which the client leaves after so many tokens."""
    request = replaced(request, model=pipeline.models()[0].id)
    delivered = 0
    async with aclosing(pipeline.run(request)) as events:
        async for event in events:
            delivered += event.num_pieces if isinstance(event, Delta) and event.text else 0
            if leave_after is not None and delivered >= leave_after:
                break
    return ledger.entries[-1].attempts[0]


@pytest.mark.parametrize("shape", [shape for shape in USAGE_SHAPES if shape != "none"])
async def test_streamed_and_whole_answers_of_every_shape(shape: str) -> None:
    async with serving("openai", Answer(tokens=WORDS, usage=shape, cached=1)) as (fake, pipeline, ledger):
        for streams in (True, False):
            attempt = await attempt_of(pipeline, ledger, chat("two words", streams=streams))
            usage = attempt.usage
            assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.estimated) == (2, fake.generated, 1, False)


async def test_no_usage_at_all_is_counted_from_what_came() -> None:
    async with serving("openai", Answer(tokens=WORDS, usage="none")) as (fake, pipeline, ledger):
        attempt = await attempt_of(pipeline, ledger, chat("two words"))
        assert attempt.usage.completion_tokens == fake.generated == 5
        assert attempt.usage.estimated


@pytest.mark.parametrize("kind", OTHERS)
async def test_streamed_and_whole_answers_of_other_dialects(kind: str) -> None:
    if kind == "bedrock":
        pytest.importorskip("boto3")
    async with serving(kind, Answer(tokens=WORDS, cached=1, finish=OTHERS[kind][2])) as (fake, pipeline, ledger):
        streamed, whole = [(await attempt_of(pipeline, ledger, chat(streams=streams))).usage for streams in (True, False)]
        assert streamed == whole
        assert (streamed.completion_tokens, streamed.cached_tokens, streamed.estimated) == (fake.generated, 1, False)


@pytest.mark.parametrize("owner", ["", "vllm"])
async def test_a_client_that_leaves(owner: str) -> None:
    async with serving("openai", Answer(tokens=WORDS, hang_after=3), owned_by=owner) as (fake, pipeline, ledger):
        attempt = await attempt_of(pipeline, ledger, chat("two words"), leave_after=3)
        assert attempt.reason == "abort"
        assert attempt.usage.completion_tokens == fake.generated == 3
        assert attempt.usage.prompt_tokens > 0


async def test_a_server_that_breaks_off() -> None:
    async with serving("openai", Answer(tokens=WORDS, cut_after=3)) as (fake, pipeline, ledger):
        attempt = await attempt_of(pipeline, ledger, chat("two words"))
        assert (attempt.reason, attempt.failure) == ("error", "upstream_error")
        assert attempt.usage.completion_tokens == fake.generated == 3
        assert attempt.usage.estimated


async def test_a_refusal_costs_nothing() -> None:
    async with serving("openai", Answer(status=400, body={"error": {"message": "no"}})) as (_, pipeline, ledger):
        attempt = await attempt_of(pipeline, ledger, chat())
        assert attempt.usage.total_tokens == 0
        assert attempt.cost_usd == 0
