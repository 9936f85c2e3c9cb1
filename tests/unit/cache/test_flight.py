"""Many who ask the very same at the same time: one answer, whatever becomes of whoever asked first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.cache import AnswerCache
from penstock.cache.flight import Flight, Flights
from penstock.cache.store import Part
from penstock.core.config import CacheSettings
from penstock.core.errors import InvalidRequest
from penstock.core.types import Delta, Event, Finish, Message, Options, Request, Route, Sampling, ToolCallPiece
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace import Tab
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream

GREEDY = Sampling(temperature=0.0)


def ask(**fields: object) -> Request:
    return Request(**({"id": "r", "model": "fake", "messages": (Message(role="user", content="Hi"),), "sampling": GREEDY} | fields))


class Gated(FakeUpstream):
    """Answers once its gate is open, each request in turn by the next script: an error, or the pieces of an answer."""

    def __init__(self, *scripts: Exception | tuple[Event, ...]) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.scripts = list(scripts)

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        self.open += 1
        try:
            await self.gate.wait()
            script = self.scripts.pop(0) if self.scripts else (Delta(text="Paris"), Finish(reason="stop"))
            if isinstance(script, Exception):
                raise script
            for event in script:
                yield event
        finally:
            self.open -= 1


class Crowd:
    """Requests under way, over one cache."""

    def __init__(self, upstream: Gated, **chosen: object) -> None:
        self.upstream = upstream
        self.cache = AnswerCache(CacheSettings(**({"exact": "on"} | chosen)))
        named = {"here": upstream}
        self.pipeline = Pipeline(dispatch=Dispatch(named), router=FixedRouter(routes_by_model(named)), cache=self.cache)

    async def answer(self, request: Request) -> tuple[str, str, str]:
        """The cache's state, the text and how it ended."""
        progress = self.pipeline.begin(request)
        async with aclosing(self.pipeline.run(request, progress)) as events:
            seen = [event async for event in events]
        finish = seen[-1]
        assert isinstance(finish, Finish)
        text = "".join(event.text for event in seen if isinstance(event, Delta))
        return progress.cache, text, finish.failure.code if finish.failure else finish.reason

    async def come(self, *requests: Request) -> list[asyncio.Task[tuple[str, str, str]]]:
        """All under way: the first leads, the others wait for it."""
        tasks = []
        for request in requests:
            tasks.append(asyncio.create_task(self.answer(request)))
            for _ in range(10):
                await asyncio.sleep(0)
        return tasks

    @property
    def is_idle(self) -> bool:
        flights = self.cache._flights
        return not flights._flights and flights._waiting == 0 and self.upstream.open == 0


@pytest.mark.feature("exact cache", "single flight")
async def test_fifty_who_ask_at_once_are_one_call() -> None:
    crowd = Crowd(Gated())
    tasks = await crowd.come(*(ask(id=str(number)) for number in range(50)))
    crowd.upstream.gate.set()
    answers = await asyncio.gather(*tasks)
    assert [state for state, _, _ in answers] == ["miss"] + ["hit"] * 49
    assert {(text, reason) for _, text, reason in answers} == {("Paris", "stop")}
    assert len(crowd.upstream.requests) == 1
    assert crowd.is_idle


@pytest.mark.feature("exact cache", "single flight", "streaming")
async def test_the_leader_streams_as_it_would_alone() -> None:
    crowd = Crowd(Gated())
    crowd.upstream.gate.set()
    async with aclosing(crowd.pipeline.run(ask())) as events:
        first = await anext(events)
        (follower,) = await crowd.come(ask())
        assert first == Delta(text="Paris")
        assert not follower.done()  # the answer is not whole yet
        assert isinstance(await anext(events), Finish)
    assert (await follower)[0] == "hit"


async def test_where_the_leader_fails_the_next_leads() -> None:
    crowd = Crowd(Gated(InvalidRequest("no")))
    tasks = await crowd.come(*(ask() for _ in range(5)))
    crowd.upstream.gate.set()
    answers = await asyncio.gather(*tasks)
    assert answers[0] == ("miss", "", "invalid_request_error")
    assert answers[1:] == [("miss", "Paris", "stop")] + [("hit", "Paris", "stop")] * 3
    assert len(crowd.upstream.requests) == 2
    assert crowd.is_idle


@pytest.mark.feature("exact cache", "single flight", "disconnect")
async def test_where_the_leader_s_client_leaves_the_next_leads() -> None:
    crowd = Crowd(Gated())
    tasks = await crowd.come(*(ask() for _ in range(4)))
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    crowd.upstream.gate.set()
    assert [state for state, _, _ in await asyncio.gather(*tasks[1:])] == ["miss", "hit", "hit"]
    assert len(crowd.upstream.requests) == 2
    assert crowd.is_idle


async def test_a_follower_s_own_deadline_counts() -> None:
    crowd = Crowd(Gated())
    leader, follower = await crowd.come(ask(), ask(deadline_s=0.05))
    assert (await follower)[2] == "deadline_exceeded"
    crowd.upstream.gate.set()
    assert (await leader)[:2] == ("miss", "Paris")
    assert crowd.is_idle


async def test_a_follower_may_leave() -> None:
    crowd = Crowd(Gated())
    leader, *followers = await crowd.come(*(ask() for _ in range(4)))
    followers[1].cancel()
    await asyncio.wait([followers[1]])
    crowd.upstream.gate.set()
    assert [state for state, _, _ in await asyncio.gather(leader, followers[0], followers[2])] == ["miss", "hit", "hit"]
    assert crowd.is_idle


async def test_an_answer_that_may_not_be_shared_sends_each_its_own_way() -> None:
    called = (Delta(tool_calls=(ToolCallPiece(index=0, id="1", name="f"),)), Finish(reason="tool_calls"))
    crowd = Crowd(Gated(*[called] * 4))
    tasks = await crowd.come(*(ask() for _ in range(4)))
    crowd.upstream.gate.set()
    assert [answer[::2] for answer in await asyncio.gather(*tasks)] == [("miss", "tool_calls")] * 4
    assert len(crowd.upstream.requests) == 4
    assert crowd.is_idle


@pytest.mark.parametrize(
    ("request_", "chosen"),
    [
        (ask(sampling=Sampling(temperature=1.0)), {}),
        (ask(options=Options(cache="off")), {}),
        (ask(options=Options(cache="refresh")), {}),
        (ask(), {"exact": "shadow"}),
    ],
    ids=["chance", "off", "refresh", "shadow"],
)
async def test_what_is_not_for_the_cache_waits_for_nobody(request_: Request, chosen: dict[str, object]) -> None:
    crowd = Crowd(Gated(), **chosen)
    tasks = await crowd.come(*[request_] * 5)
    assert crowd.upstream.open == 5
    crowd.upstream.gate.set()
    await asyncio.gather(*tasks)
    assert crowd.is_idle


async def test_two_tenants_never_fly_together() -> None:
    crowd = Crowd(Gated())
    tasks = await crowd.come(ask(tenant="a"), ask(tenant="b"))
    assert crowd.upstream.open == 2
    crowd.upstream.gate.set()
    assert [state for state, _, _ in await asyncio.gather(*tasks)] == ["miss", "miss"]


async def test_a_clearing_frees_those_who_wait() -> None:
    crowd = Crowd(Gated())
    tasks = await crowd.come(ask(), ask())
    await crowd.cache.clear(Part())
    for _ in range(10):
        await asyncio.sleep(0)
    assert crowd.upstream.open == 2
    crowd.upstream.gate.set()
    assert [state for state, _, _ in await asyncio.gather(*tasks)] == ["miss", "miss"]
    assert crowd.is_idle


async def test_nobody_waits_for_ever() -> None:
    flights = Flights(follow_s=0.01)
    assert flights.lead(b"k") is not None
    assert await flights.follow(b"k") is None
    assert flights._waiting == 0


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whoever_leaves_fails_or_is_late_all_others_are_answered(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 8))
    scripts = data.draw(st.lists(st.sampled_from([InvalidRequest("no"), (Delta(text="Paris"), Finish(reason="stop"))]), max_size=count))
    leaving = data.draw(st.lists(st.integers(0, count - 1), max_size=count, unique=True))

    async def scenario() -> None:
        crowd = Crowd(Gated(*scripts))
        tasks = await crowd.come(*(ask() for _ in range(count)))
        for place in leaving:
            if data.draw(st.booleans()):
                crowd.upstream.gate.set()
            tasks[place].cancel()
            for _ in range(data.draw(st.integers(0, 6))):
                await asyncio.sleep(0)
        crowd.upstream.gate.set()
        async with asyncio.timeout(10):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for place, answer in enumerate(ended):
            assert place in leaving or isinstance(answer, tuple)
            if isinstance(answer, tuple) and answer[2] == "stop":
                assert answer[1] == "Paris"
        assert crowd.is_idle

    asyncio.run(scenario())


def test_a_flight_is_led_once() -> None:
    flights = Flights()
    flight = flights.lead(b"k")
    assert isinstance(flight, Flight)
    assert flights.lead(b"k") is None
    flights.abandon(flight)
    assert flights.lead(b"k") is not None
