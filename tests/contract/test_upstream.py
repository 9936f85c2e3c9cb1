"""What every upstream owes; each test runs against each implementation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from fakes.anthropic import anthropic_fake
from fakes.asking import upstream_at
from fakes.bedrock import bedrock_fake
from fakes.openai import openai_fake
from fakes.vertex import vertex_fake
from serving import tab

from penstock.core.config import EngineSpec
from penstock.core.errors import Unsupported
from penstock.core.types import Delta, Event, Finish, Message, ModelCard, PromptInfo, Request, Route, Sampling
from penstock.engine.client import EngineClient
from penstock.files import locate
from penstock.text import load_chat_template, load_tokenizer
from penstock.trace import Tab
from penstock.upstream import Tokenizing, Upstream
from penstock.upstream.fake import FakeUpstream
from penstock.upstream.local import LocalUpstream

FAKES = {"openai": openai_fake, "anthropic": anthropic_fake, "bedrock": bedrock_fake, "vertex": vertex_fake}
VENDOR: dict[str, dict[str, object]] = {
    "openai": {},
    "anthropic": {},
    "bedrock": {"region": "us-east-1", "api_key": "id:secret", "models": ["m"]},
    "vertex": {"project": "p", "api_key": "key", "models": ["m"]},
}


@pytest.fixture(params=["fake", "local", *FAKES])
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    kind = request.param
    if kind not in FAKES:
        upstream = FakeUpstream() if kind == "fake" else await local()
        yield upstream
        await upstream.close()
        return
    if kind == "bedrock":
        pytest.importorskip("boto3")
    async with FAKES[kind]() as server, upstream_at(server.url, kind=kind, **VENDOR[kind]) as upstream:
        yield upstream


async def local() -> LocalUpstream:
    files = locate("penstock-mini")
    engine = EngineClient(str(files.path), EngineSpec(in_process=True, device="cpu", threads=1, kv_bytes=2**26))
    await engine.start()
    tokenizer = load_tokenizer(files)
    return LocalUpstream(engine, tokenizer, load_chat_template(files, tokenizer), ModelCard(id="mini", created=0))


def ask(upstream: Upstream, *, max_tokens: int = 3, n: int = 1, streams: bool = True, **sampling: object) -> Request:
    (card,) = upstream.models()
    chat = (Message(role="user", content="Hello there"),)
    sampled = Sampling(temperature=0, max_tokens=max_tokens, **sampling)
    return Request(id="r", model=card.id, messages=chat, add_special_tokens=False, n=n, streams=streams, sampling=sampled)


async def answer(upstream: Upstream, request: Request, noted: Tab | None = None) -> list[Event]:
    """All events. What an upstream refuses by name it need not do."""
    route = Route(upstream="here", model=request.model)
    try:
        async with aclosing(upstream.stream(request, route, noted or tab())) as events:
            return [event async for event in events]
    except Unsupported as error:
        pytest.skip(error.message)


def tokens(events: list[Event]) -> int:
    """How many were delivered: where ids are not told, a piece is one."""
    pieces = [event for event in events if isinstance(event, Delta)]
    return sum(len(piece.token_ids) or (piece.num_pieces if piece.text else 0) for piece in pieces)


def by_choice(events: list[Event]) -> dict[int, list[Delta]]:
    choices: dict[int, list[Delta]] = defaultdict(list)
    for event in events:
        if isinstance(event, Delta):
            choices[event.index].append(event)
    return choices


async def test_maybe_a_prompt_then_pieces_then_one_finish(upstream: Upstream) -> None:
    *events, last = await answer(upstream, ask(upstream))
    pieces = events[1:] if isinstance(events[0], PromptInfo) else events
    assert pieces
    assert all(isinstance(piece, Delta) for piece in pieces)
    assert isinstance(last, Finish)


async def test_usage_is_what_was_sent(upstream: Upstream) -> None:
    noted = tab()
    first, *_, last = events = await answer(upstream, ask(upstream, n=2), noted)
    assert isinstance(last, Finish)
    assert noted.usage == last.usage
    assert not last.usage.estimated
    assert last.usage.completion_tokens == tokens(events)
    assert last.usage.cached_tokens <= last.usage.prompt_tokens
    assert last.usage.prompt_tokens == len(first.token_ids) if isinstance(first, PromptInfo) else last.usage.prompt_tokens > 0


@pytest.mark.parametrize("max_tokens", [2, 3])
async def test_whole_or_streamed_the_answer_is_the_same(upstream: Upstream, max_tokens: int) -> None:
    answers = [await answer(upstream, ask(upstream, max_tokens=max_tokens, streams=streams)) for streams in (True, False)]
    texts = ["".join(event.text for event in events if isinstance(event, Delta)) for events in answers]
    assert texts[0] == texts[1] != ""
    streamed, whole = (events[-1] for events in answers)
    assert streamed.reason == whole.reason
    assert (streamed.usage.prompt_tokens, streamed.usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)


async def test_max_tokens_cuts_an_answer_short(upstream: Upstream) -> None:
    events = await answer(upstream, ask(upstream, max_tokens=2))
    (pieces,) = by_choice(events).values()
    assert tokens(events) == 2
    assert pieces[-1].finish_reason == "length"
    assert events[-1].reason == "length"


async def test_each_choice_ends_once_and_last(upstream: Upstream) -> None:
    choices = by_choice(await answer(upstream, ask(upstream, n=3)))
    assert sorted(choices) == [0, 1, 2]
    for pieces in choices.values():
        assert [piece.finish_reason is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]


async def test_every_token_has_its_logprob(upstream: Upstream) -> None:
    events = await answer(upstream, ask(upstream, logprobs=2))
    scored = [piece for piece in by_choice(events)[0] if piece.text]
    assert scored
    for piece in scored:
        assert piece.logprobs is not None
        assert not piece.token_ids or tuple(scored.token_id for scored in piece.logprobs) == piece.token_ids
        assert all(len(scored.top) == 2 and scored.logprob <= 0 for scored in piece.logprobs)


async def test_no_logprobs_unless_asked_for(upstream: Upstream) -> None:
    events = await answer(upstream, ask(upstream))
    assert all(piece.logprobs is None for piece in by_choice(events)[0])
    assert not isinstance(events[0], PromptInfo) or events[0].logprobs is None


async def test_the_first_token_of_a_prompt_has_no_logprob(upstream: Upstream) -> None:
    info = (await answer(upstream, ask(upstream, prompt_logprobs=1)))[0]
    assert info.logprobs is not None
    assert len(info.logprobs) == len(info.token_ids)
    assert [scored is None for scored in info.logprobs] == [True] + [False] * (len(info.token_ids) - 1)


async def test_a_stream_closed_early_leaves_the_upstream_usable(upstream: Upstream) -> None:
    request = ask(upstream, max_tokens=10)
    async with aclosing(upstream.stream(request, Route(upstream="here", model=request.model), tab())) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    assert isinstance((await answer(upstream, request))[-1], Finish)


async def test_requests_of_one_id_do_not_meet(upstream: Upstream) -> None:
    request = ask(upstream)
    route = Route(upstream="here", model=request.model)
    async with aclosing(upstream.stream(request, route, tab())) as first, aclosing(upstream.stream(request, route, tab())) as second:
        texts = ["", ""]
        async for event in first:
            texts[0] += event.text if isinstance(event, Delta) else ""
        async for event in second:
            texts[1] += event.text if isinstance(event, Delta) else ""
    assert texts[0] == texts[1] != ""


async def test_tokens_go_there_and_back(upstream: Upstream) -> None:
    if not isinstance(upstream, Tokenizing):
        pytest.skip("this upstream does not tell its tokens")
    request = Request(id="r", model=upstream.models()[0].id, prompt="Hello there", add_special_tokens=False)
    info = await upstream.tokenize(request)
    assert await upstream.detokenize(info.token_ids) == "Hello there"
    assert len(upstream.token_strings(info.token_ids)) == len(info.token_ids)


async def test_a_chat_becomes_a_prompt(upstream: Upstream) -> None:
    if not isinstance(upstream, Tokenizing):
        pytest.skip("this upstream does not tell its tokens")
    request = Request(id="r", model=upstream.models()[0].id, messages=(Message(role="user", content="Good morning"),))
    assert "Good morning" in ((await upstream.tokenize(request)).text or "")


async def test_ready_until_closed(upstream: Upstream) -> None:
    assert upstream.health().ready
    await upstream.close()
    assert not upstream.health().ready
