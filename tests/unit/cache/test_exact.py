"""What may be answered from memory, what may not, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.cache import AnswerCache
from penstock.cache.store.memory import MemoryStore
from penstock.cache.store.protocol import Bounds
from penstock.core.config import CacheSettings
from penstock.core.errors import Forbidden, UpstreamFailed, from_failure
from penstock.core.types import (
    Delta,
    EngineUse,
    Event,
    Finish,
    Message,
    Principal,
    Request,
    Route,
    Sampling,
    Timings,
    Tool,
    ToolCallPiece,
    Usage,
    Vectors,
    unheard,
)
from penstock.meter import MemoryLedger
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace import Ended, Tab
from penstock.upstream import Dispatch, Upstream, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script

GREEDY = Sampling(temperature=0.0)


class CentPerToken:
    """One cent for each token of an answer."""

    def cost(self, route: Route, usage: Usage, use: EngineUse | None) -> Decimal | None:
        return usage.completion_tokens * Decimal("0.01")

    def worst(self, route: Route, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        return None


class Kept(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Ended] = []

    def record(self, ended: Ended) -> None:
        self.entries.append(ended)


class Page:
    """A pipeline with a cache, on a clock that only the test moves."""

    def __init__(self, upstream: Upstream | None = None, **settings: object) -> None:
        self.now_s = 0.0
        self.upstream = upstream or FakeUpstream()
        self.ledger = Kept()
        named = {"here": self.upstream}
        chosen = CacheSettings(exact="on", **settings)
        self.store = MemoryStore(Bounds(chosen.max_bytes, chosen.max_entries), lambda: self.now_s)
        self.cache = AnswerCache(chosen, self.store, clock=lambda: self.now_s)
        self.pipeline = Pipeline(
            dispatch=Dispatch(named),
            router=FixedRouter(routes_by_model(named)),
            cache=self.cache,
            pricing=CentPerToken(),
            ledger=self.ledger,
        )

    async def events(self, request: Request) -> list[Event]:
        async with aclosing(self.pipeline.run(request)) as events:
            return [event async for event in events]

    async def states(self, *requests: Request) -> list[str]:
        for request in requests:
            await self.events(request)
        return [entry.cache for entry in self.ledger.entries[-len(requests) :]]


def ask(**fields: object) -> Request:
    return Request(**({"id": "r", "model": "fake", "messages": (Message(role="user", content="Hi"),), "sampling": GREEDY} | fields))


@pytest.mark.feature("exact cache", "streaming")
async def test_a_repeat_is_the_same_stream_and_costs_nothing() -> None:
    page = Page()
    first, second = await page.events(ask()), await page.events(ask(id="another"))
    assert second[:-1] == first[:-1]
    assert isinstance(second[-1], Finish)
    assert second[-1].usage == first[-1].usage
    assert [finish.cost_usd for finish in (first[-1], second[-1])] == [Decimal("0.13"), Decimal(0)]
    (attempt,) = page.ledger.entries[-1].attempts
    assert (attempt.purpose, attempt.cost_usd, attempt.saved_usd) == ("cache", Decimal(0), Decimal("0.13"))
    assert len(page.upstream.requests) == 1


@pytest.mark.parametrize(
    ("sampling", "states"),
    [
        (Sampling(temperature=0.0), ["miss", "hit"]),
        (Sampling(temperature=0.7, seed=1), ["miss", "hit"]),
        (Sampling(temperature=0.7), ["bypass", "bypass"]),
    ],
)
async def test_only_what_chance_does_not_change_is_kept(sampling: Sampling, states: list[str]) -> None:
    assert await Page().states(ask(sampling=sampling), ask(sampling=sampling)) == states


DIFFERENT = [
    {"tenant": "b"},
    {"messages": (Message(role="user", content="Hi "),)},
    {"messages": (Message(role="system", content="Hi"),)},
    {"messages": (Message(role="user", content="H"), Message(role="user", content="i"))},
    {"sampling": replace(GREEDY, max_tokens=5)},
    {"sampling": replace(GREEDY, stop=("x",))},
    {"sampling": replace(GREEDY, logprobs=1)},
    {"n": 2},
    {"tools": (Tool(name="f"),)},
    {"response_format": {"type": "json_object"}},
    {"chat_template_kwargs": {"thinking": True}},
    {"principal": Principal(models=("fake",))},
    {"principal": Principal(models=("fake", "other"))},
]


@pytest.mark.parametrize("change", DIFFERENT, ids=" ".join)
async def test_another_request_is_another_answer(change: dict[str, object]) -> None:
    assert await Page().states(ask(), ask(**change)) == ["miss", "miss"]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"priority": 5},
        {"deadline_s": 9.0},
        {"streams": False},
        {"principal": Principal(key_id="k", name="n", priority=3)},
        {"sampling": replace(GREEDY, seed=7, top_p=0.5, top_k=3)},  # nothing is drawn
    ],
    ids=" ".join,
)
async def test_what_cannot_change_an_answer_is_no_part_of_its_key(change: dict[str, object]) -> None:
    assert await Page().states(ask(), ask(**change)) == ["miss", "hit"]


async def test_the_order_of_keys_in_a_table_means_nothing() -> None:
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert await Page().states(ask(chat_template_kwargs=one), ask(chat_template_kwargs=other)) == ["miss", "hit"]


@pytest.mark.feature("exact cache", "keys")
async def test_a_key_gets_no_answer_of_a_model_that_it_may_not_use() -> None:
    page = Page()
    await page.events(ask(tenant="shared"))
    finish = (await page.events(ask(tenant="shared", principal=Principal(models=("other",)))))[-1]
    assert isinstance(finish, Finish)
    assert finish.failure is not None
    assert isinstance(from_failure(finish.failure), Forbidden)


@pytest.mark.parametrize("script", [Script(error=UpstreamFailed("cut"), error_after=2), Script(error=ValueError("bug"), error_after=4)])
async def test_half_an_answer_is_not_kept(script: Script) -> None:
    assert await Page(FakeUpstream(script, Script())).states(ask(), ask(), ask()) == ["miss", "miss", "hit"]


@pytest.mark.feature("exact cache", "disconnect")
async def test_an_answer_whose_client_left_is_not_kept() -> None:
    page = Page()
    async with aclosing(page.pipeline.run(ask())) as events:
        await anext(events)
        await anext(events)
    assert await page.states(ask()) == ["miss"]


async def test_an_answer_cut_by_its_limit_is_whole() -> None:
    limited = ask(sampling=replace(GREEDY, max_tokens=3))
    assert await Page().states(limited, limited) == ["miss", "hit"]


class Scripted(FakeUpstream):
    """Streams the given events."""

    def __init__(self, *events: Event) -> None:
        super().__init__()
        self.events = events

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        for event in self.events:
            yield event


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
@pytest.mark.feature("exact cache", "tools")
async def test_a_call_of_a_tool_is_not_kept(reason: str) -> None:
    called = Delta(tool_calls=(ToolCallPiece(index=0, id="1", name="f"),), finish_reason=reason)
    assert await Page(Scripted(called, Finish(reason=reason))).states(ask(), ask()) == ["miss", "miss"]


async def test_a_replay_has_timings_of_its_own() -> None:
    waited = Finish(reason="stop", timings=Timings(queue_s=5.0), usage=Usage(prompt_tokens=1, completion_tokens=1))
    page = Page(Scripted(Delta(text="a"), waited))
    finishes = [(await page.events(ask()))[-1] for _ in range(2)]
    assert [finish.timings.queue_s for finish in finishes if isinstance(finish, Finish)] == [5.0, None]


@pytest.mark.feature("exact cache", "embeddings")
async def test_vectors_are_kept() -> None:
    request = ask(messages=None, inputs=("a", "b"), sampling=Sampling())
    page = Page(Scripted(Vectors(vectors=((0.25, 1 / 3), (0.0, -1.0))), Finish(reason="stop", usage=Usage(prompt_tokens=2))))
    first, second = await page.events(request), await page.events(request)
    assert page.ledger.entries[-1].cache == "hit"
    assert second[0] == first[0]


async def test_an_answer_grows_old() -> None:
    page = Page(ttl_s=10.0)
    await page.events(ask())
    page.now_s = 9.9
    assert await page.states(ask()) == ["hit"]
    page.now_s = 10.0
    assert await page.states(ask(), ask()) == ["miss", "hit"]


async def one_answer_bytes() -> int:
    page = Page()
    await page.events(ask())
    return (await page.store.held()).bytes


async def test_the_longest_unused_goes_first() -> None:
    page = Page(max_bytes=3 * await one_answer_bytes() + 100)
    a, b, c, d = (ask(tenant=name) for name in "abcd")
    assert await page.states(a, b, c, a, d) == ["miss", "miss", "miss", "hit", "miss"]
    assert await page.states(a, c, d, b) == ["hit", "hit", "hit", "miss"]


async def test_what_is_larger_than_the_cache_is_not_kept_and_drives_nothing_out() -> None:
    page = Page(FakeUpstream(Script(), Script(pieces=("x" * 1000,))), max_bytes=await one_answer_bytes() + 100)
    large = ask(tenant="large")
    assert await page.states(ask(), large, large, ask()) == ["miss", "miss", "miss", "hit"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400)), max_size=40))
def test_memory_stays_within_its_bound(asked: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        store = MemoryStore(Bounds(2000, 100))  # room for two or three
        cache = AnswerCache(CacheSettings(exact="on", max_bytes=2000), store)

        async def answer(size: int) -> AsyncGenerator[Event, None]:
            yield Delta(text="x" * size)
            yield Finish(reason="stop")

        tab = Tab(Route(upstream="u", model="m"), "answer", 0, 0.0, 0.0)
        for number, size in asked:
            request = ask(tenant=f"{number}, {size}")  # the same question has the same answer
            looked = await cache.find(request, unheard)
            if looked.state == "miss":
                first, _ = [event async for event in cache.keep(looked, answer(size), lambda: tab)]
                assert first == Delta(text="x" * size)
            await cache.done(looked, good=True)
            assert (await store.held()).bytes <= 2000
            found = await cache.find(request, unheard)
            assert found.state == "hit"
            assert found.events[0] == Delta(text="x" * size)

    asyncio.run(scenario())


PRINCIPALS = [Principal(key_id=key, models=models) for key in "ab" for models in (None, ("fake",), ("fake", "other"))]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "b", "a\x1fsalt"]), st.sampled_from(PRINCIPALS), st.sampled_from(["Hi", "Ho"]), st.integers(1, 2)
        ),
        max_size=25,
    )
)
def test_a_hit_is_only_ever_the_same_question_of_the_same_tenant(asked: list[tuple[str, Principal, str, int]]) -> None:
    async def scenario() -> None:
        page, answered = Page(), set()
        for number, (tenant, principal, text, limit) in enumerate(asked):
            sampling = replace(GREEDY, max_tokens=limit)
            messages = (Message(role="user", content=text),)
            (state,) = await page.states(
                ask(id=str(number), tenant=tenant, principal=principal, messages=messages, sampling=sampling),
            )
            who_and_what = (tenant, principal.models, text, limit)
            assert state == ("hit" if who_and_what in answered else "miss")
            answered.add(who_and_what)

    asyncio.run(scenario())
