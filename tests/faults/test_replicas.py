"""Two real servers of one model, one of which fails: clients are answered by the other."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest
from fakes.asking import chat, finish_of, text_of, until, upstream_at
from fakes.openai import openai_fake
from fakes.server import Answer, Fake
from msgspec.structs import replace

from penstock.core.config import DispatchSettings
from penstock.core.types import Event
from penstock.meter import MemoryLedger
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace import Ended
from penstock.upstream import Dispatch, routes_by_model

REFUSED = {"error": {"message": "not now", "type": "server_error"}}


class Kept(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Ended] = []

    def record(self, ended: Ended) -> None:
        self.entries.append(ended)


@asynccontextmanager
async def over(*fakes: Fake, clock: Callable[[], float] = time.monotonic, **settings: object) -> AsyncIterator[Pipeline]:
    """A pipeline over running servers, called a, b, …"""
    async with AsyncExitStack() as opened:
        named = {name: await opened.enter_async_context(upstream_at(fake.url)) for name, fake in zip("abc", fakes, strict=False)}
        dispatch = Dispatch(named, DispatchSettings(**({"backoff_s": 0.001} | settings)), clock=clock)
        yield Pipeline(dispatch=dispatch, router=FixedRouter(routes_by_model(named)), ledger=Kept())


async def ask(pipeline: Pipeline, text: str = "Say something") -> list[Event]:
    request = replace(chat(text), model="auto")
    async with aclosing(pipeline.run(request)) as events:
        return [event async for event in events]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(cut_after=0),
        Answer(hang_after=0),
        Answer(status=500, body=REFUSED),
        Answer(status=429, body=REFUSED, headers={"retry-after": "30"}),
    ],
    ids=["cut", "hung", "500", "429"],
)
@pytest.mark.feature("retries", "replicas")
async def test_a_crowd_is_answered_by_the_replica_that_works(answer: Answer) -> None:
    patience_s = 30.0 if answer.hang_after is None else 2.0  # a machine that is busy elsewhere is no server that hangs
    async with openai_fake(answer) as broken, openai_fake() as works, over(broken, works, first_token_s=patience_s) as pipeline:
        answers = await asyncio.gather(*(ask(pipeline, f"Say {number}") for number in range(20)))
        assert Counter(map(text_of, answers)) == {"Hello, world.": 20}
        assert {finish_of(events).reason for events in answers} == {"stop"}
        attempts = [attempt for entry in pipeline.ledger.entries for attempt in entry.attempts]
        assert len(attempts) == len(broken.asked) + len(works.asked)
        await until(lambda: broken.open == works.open == 0)  # nobody is left waiting there


@pytest.mark.feature("retries", "breaker", "replicas")
async def test_a_replica_that_hangs_is_soon_left_alone() -> None:
    async with openai_fake(Answer(hang_after=0)) as hangs, openai_fake() as works:
        async with over(hangs, works, first_token_s=0.4, breaker_failures=2, breaker_open_s=60.0) as pipeline:
            for number in range(10):
                assert text_of(await ask(pipeline, f"Say {number}")) == "Hello, world."
        assert len(hangs.asked) == 2


async def test_a_server_that_went_away_and_came_back_is_used_again() -> None:
    down, now_s = Answer(status=503, body=REFUSED), [0.0]
    settings = {"attempts": 1, "breaker_failures": 2, "breaker_open_s": 10.0}
    async with openai_fake(down, down, Answer()) as only, over(only, clock=lambda: now_s[0], **settings) as pipeline:
        failures = [finish_of(await ask(pipeline)).failure for _ in range(3)]
        assert [failure and failure.code for failure in failures][2] == "not_ready"  # without a call
        assert len(only.asked) == 2
        now_s[0] = 10.0
        assert text_of(await ask(pipeline)) == "Hello, world."


@pytest.mark.feature("hedging", "replicas")
async def test_a_race_over_http_ends_the_loser_s_connection() -> None:
    async with openai_fake(Answer(hang_after=0)) as slow, openai_fake() as quick, over(slow, quick, hedge_after_s=0.05) as pipeline:
        for _ in range(3):
            assert text_of(await ask(pipeline)) == "Hello, world."
        await until(lambda: slow.open == 0)
        purposes = [tuple(attempt.purpose for attempt in entry.attempts) for entry in pipeline.ledger.entries]
        assert purposes[0] == ("answer", "hedge")


async def test_a_long_answer_goes_on_after_a_race() -> None:
    words = tuple(f"word {number} " for number in range(300))
    hangs, answers = openai_fake(Answer(hang_after=0)), openai_fake(Answer(tokens=words))
    async with hangs as slow, answers as quick, over(slow, quick, hedge_after_s=0.02, first_token_s=5.0) as pipeline:
        assert text_of(await ask(pipeline)) == "".join(words)
