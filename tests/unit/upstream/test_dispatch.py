"""Retries, breakers, races and replicas: what a client and a ledger see of them."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.cache import AnswerCache
from penstock.core.config import CacheSettings, DispatchSettings
from penstock.core.errors import EngineDied, InvalidRequest, NotReady, Overloaded, UpstreamFailed
from penstock.core.types import Decision, Delta, Event, Finish, Health, Judge, Message, Request, Route, Sampling, Usage, unheard
from penstock.meter import MemoryLedger
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace import Ended, Tab
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script

FAILS = Script(error=UpstreamFailed("no connection"))
HANGS = Script(hang_after=0)
BREAKS_OFF = Script(error=UpstreamFailed("cut"), error_after=2)
QUICK = {"backoff_s": 0.001}


class Kept(MemoryLedger):
    """A ledger that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Ended] = []

    def record(self, ended: Ended) -> None:
        self.entries.append(ended)


class Page:
    """A pipeline over fakes called a, b, c…, on a clock that only the test moves."""

    def __init__(self, *upstreams: FakeUpstream, **given: object) -> None:
        self.now_s = 0.0
        self.upstreams = dict(zip("abcdef", upstreams, strict=False))
        self.ledger = Kept()
        dispatch = Dispatch(self.upstreams, DispatchSettings(**(QUICK | given)), clock=lambda: self.now_s, rng=random.Random(0))
        self.pipeline = Pipeline(dispatch=dispatch, router=FixedRouter(routes_by_model(self.upstreams)), ledger=self.ledger)

    def run(self, request: Request) -> AsyncGenerator[Event, None]:
        return self.pipeline.run(request)

    async def finish(self, request: Request) -> Finish:
        async with aclosing(self.run(request)) as events:
            return [event async for event in events][-1]

    def asked(self) -> str:
        """How often each upstream was asked, such as "a2 b1"."""
        return " ".join(f"{name}{len(upstream.requests)}" for name, upstream in self.upstreams.items() if upstream.requests)

    def attempts(self) -> list[tuple[str, str, str]]:
        """Of the last request: upstream, purpose and how it ended."""
        return [(attempt.route.upstream, attempt.purpose, attempt.reason) for attempt in self.ledger.entries[-1].attempts]

    def decision(self) -> Decision:
        decision = self.ledger.entries[-1].decision
        assert decision is not None
        return decision


def ask(prompt: str = "Hi", *, tenant: str = "", max_tokens: int | None = None) -> Request:
    return Request(id="r", model="fake", prompt=prompt, tenant=tenant, sampling=Sampling(max_tokens=max_tokens))


def chat(*turns: str, tenant: str = "") -> Request:
    roles = ["system", *("user", "assistant") * len(turns)]
    messages = tuple(Message(role=role, content=text) for role, text in zip(roles, turns, strict=False))
    return Request(id="r", model="fake", messages=messages, tenant=tenant)


# Retries


@pytest.mark.feature("retries")
async def test_a_route_that_fails_is_asked_again_after_a_pause() -> None:
    page = Page(FakeUpstream(FAILS, FAILS, Script()))
    assert (await page.finish(ask())).reason == "stop"
    assert page.attempts() == [("a", "answer", "error"), ("a", "retry", "error"), ("a", "retry", "stop")]
    assert "after another call failed: no connection" in page.decision().why


async def test_other_routes_go_before_a_second_try_and_attempts_are_bounded() -> None:
    page = Page(FakeUpstream(FAILS), FakeUpstream(FAILS), attempts=3)
    finish = await page.finish(ask())
    assert finish.failure is not None
    assert (finish.failure.code, finish.failure.status) == ("upstream_error", 502)
    assert [upstream for upstream, _, _ in page.attempts()] == ["a", "b", "a"]


@pytest.mark.parametrize("error", [Overloaded("full"), EngineDied("gone"), NotReady("loading"), InvalidRequest("no")])
async def test_what_a_repeat_cannot_help_is_not_repeated(error: Exception) -> None:
    page = Page(FakeUpstream(Script(error=error)))
    await page.finish(ask())
    assert page.asked() == "a1"


async def test_an_upstream_that_wants_a_longer_rest_than_a_pause_is_not_asked_again() -> None:
    page = Page(FakeUpstream(Script(error=UpstreamFailed("busy", retry_after_s=60))))
    finish = await page.finish(ask())
    assert page.asked() == "a1"
    assert finish.failure is not None
    assert finish.failure.retry_after_s == 60


async def test_the_first_token_must_come_in_time() -> None:
    page = Page(FakeUpstream(HANGS), FakeUpstream(), first_token_s=0.1)
    assert (await page.finish(ask())).reason == "stop"
    assert page.attempts() == [("a", "answer", "error"), ("b", "retry", "stop")]
    assert page.ledger.entries[-1].attempts[0].failure == "deadline_exceeded"
    assert page.upstreams["a"].open == 0


async def test_a_first_token_in_time_may_be_followed_by_a_slow_answer() -> None:
    page = Page(FakeUpstream(Script(delay_s=0.1)), first_token_s=0.35)
    assert (await page.finish(ask())).reason == "stop"
    assert page.asked() == "a1"


@pytest.mark.parametrize("limits", [{"first_token_s": 5.0}, {"hedge_after_s": 0.001}, {"hedge_after_s": 0.001, "first_token_s": 5.0}, {}])
async def test_the_request_s_deadline_holds_over_all_of_it(limits: dict[str, float]) -> None:
    page = Page(FakeUpstream(HANGS), FakeUpstream(HANGS), **limits)
    request = replace(ask(), deadline_s=0.03)
    page.pipeline = dataclasses.replace(page.pipeline, clock=asyncio.get_running_loop().time)
    failure = (await page.finish(request)).failure
    assert failure is not None
    assert (failure.status, failure.message) == (504, "no complete answer within 0.03 s")
    assert [upstream.open for upstream in page.upstreams.values()] == [0, 0]


async def test_the_deadline_ends_a_pause_between_tries() -> None:
    page = Page(FakeUpstream(FAILS), backoff_s=1000.0, max_backoff_s=1000.0)
    page.pipeline = dataclasses.replace(page.pipeline, clock=asyncio.get_running_loop().time)
    failure = (await page.finish(replace(ask(), deadline_s=0.03))).failure
    assert failure is not None
    assert failure.code == "deadline_exceeded"
    assert page.asked() == "a1"


@pytest.mark.parametrize(("limits", "streams"), [({}, False), ({"first_token_s": 5.0}, True), ({"hedge_after_s": 5.0}, True)])
async def test_where_the_first_token_is_timed_the_upstream_streams(limits: dict[str, float], streams: bool) -> None:
    page = Page(FakeUpstream(), **limits)
    await page.finish(replace(ask(), streams=False))
    assert [request.streams for request in page.upstreams["a"].requests] == [streams]


# Breakers


@pytest.mark.feature("breaker")
async def test_a_route_that_failed_too_often_rests_and_is_probed_once() -> None:
    page = Page(FakeUpstream(FAILS, FAILS, Script(delay_s=0.01), Script()), attempts=1, breaker_failures=2, breaker_open_s=10.0)
    for _ in range(2):
        await page.finish(ask())
    page.now_s = 4.0
    resting = (await page.finish(ask())).failure
    assert resting is not None
    assert (resting.status, resting.code, resting.retry_after_s) == (503, "not_ready", 6.0)
    assert "'a': no connection" in resting.message
    assert page.asked() == "a2"  # and was left alone
    page.now_s = 10.0
    probe, other = await asyncio.gather(page.finish(ask()), page.finish(ask()))
    assert probe.reason == "stop"
    assert other.failure is not None
    assert other.failure.code == "not_ready"
    assert (await page.finish(ask())).reason == "stop"


async def test_a_failed_probe_begins_another_rest() -> None:
    page = Page(FakeUpstream(FAILS), attempts=1, breaker_failures=3)
    for _ in range(3):
        await page.finish(ask())
    page.now_s = 10.0
    await page.finish(ask())
    page.now_s = 19.0
    await page.finish(ask())
    assert page.asked() == "a4"
    page.now_s = 20.0
    await page.finish(ask())
    assert page.asked() == "a5"


async def test_a_probe_that_meets_an_engine_that_loads_lets_another_probe() -> None:
    page = Page(FakeUpstream(FAILS, Script(error=NotReady("loading")), Script()), attempts=1, breaker_failures=1)
    await page.finish(ask())
    page.now_s = 10.0
    await page.finish(ask())
    assert (await page.finish(ask())).reason == "stop"


@pytest.mark.feature("breaker", "disconnect")
async def test_a_probe_whose_client_left_lets_another_probe() -> None:
    page = Page(FakeUpstream(FAILS, HANGS, Script()), attempts=1, breaker_failures=1)
    await page.finish(ask())
    page.now_s = 10.0
    task = asyncio.create_task(page.finish(ask()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await page.finish(ask())).reason == "stop"


@pytest.mark.feature("retries", "breaker")
async def test_a_resting_route_is_passed_over() -> None:
    page = Page(FakeUpstream(FAILS), FakeUpstream(), breaker_failures=1)
    await page.finish(ask())
    await page.finish(ask())
    assert page.asked() == "a1 b2"


@pytest.mark.parametrize("error", [Overloaded("full"), InvalidRequest("no"), EngineDied("gone")])
async def test_only_a_route_s_own_failures_count(error: Exception) -> None:
    page = Page(FakeUpstream(Script(error=error), Script(error=error), Script()), attempts=1, breaker_failures=1)
    for _ in range(2):
        await page.finish(ask())
    assert (await page.finish(ask())).reason == "stop"


async def test_answers_that_break_off_count_and_whole_ones_clear_the_count() -> None:
    page = Page(FakeUpstream(BREAKS_OFF, Script(), BREAKS_OFF, BREAKS_OFF, Script()), breaker_failures=2)
    reasons = [(await page.finish(ask())).failure for _ in range(5)]
    assert [failure and failure.code for failure in reasons] == ["upstream_error", None, "upstream_error", "upstream_error", "not_ready"]


# Races


@pytest.mark.feature("hedging")
async def test_a_slow_first_token_makes_a_race() -> None:
    page = Page(FakeUpstream(HANGS), FakeUpstream(), hedge_after_s=0.01)
    assert (await page.finish(ask())).reason == "stop"
    assert page.attempts() == [("a", "answer", "abort"), ("b", "hedge", "stop")]
    assert page.decision().route.upstream == "b"
    assert "'a' was slow to begin" in page.decision().why
    assert [upstream.open for upstream in page.upstreams.values()] == [0, 0]


async def test_the_first_runner_may_still_win() -> None:
    page = Page(FakeUpstream(Script(delay_s=0.1)), FakeUpstream(HANGS), hedge_after_s=0.005)
    assert (await page.finish(ask())).reason == "stop"
    assert page.attempts() == [("a", "answer", "stop"), ("b", "hedge", "abort")]


async def test_no_race_where_the_first_token_comes_in_time() -> None:
    page = Page(FakeUpstream(), FakeUpstream(), hedge_after_s=5.0)
    await page.finish(ask())
    assert page.asked() == "a1"


async def test_a_route_without_another_has_nobody_to_race() -> None:
    page = Page(FakeUpstream(Script(delay_s=0.01)), hedge_after_s=0.001)
    assert (await page.finish(ask())).reason == "stop"
    assert page.asked() == "a1"


@pytest.mark.parametrize(("first", "second"), [(Script(delay_s=0.1), FAILS), (Script(error=EngineDied("gone")), Script())])
async def test_a_runner_that_fails_leaves_the_race_to_the_other(first: Script, second: Script) -> None:
    page = Page(FakeUpstream(first), FakeUpstream(second), hedge_after_s=0.005)
    assert (await page.finish(ask())).reason == "stop"
    assert page.asked() == "a1 b1"


@pytest.mark.feature("retries", "hedging")
async def test_when_both_runners_fail_the_tries_go_on() -> None:
    page = Page(FakeUpstream(Script(error=UpstreamFailed("late"), error_after=0), Script()), FakeUpstream(FAILS), hedge_after_s=0.005)
    assert (await page.finish(ask())).reason == "stop"
    assert [upstream for upstream, _, _ in page.attempts()] == ["a", "b", "a"]


@pytest.mark.feature("hedging", "disconnect")
async def test_a_client_that_leaves_a_race_frees_both() -> None:
    page = Page(FakeUpstream(HANGS), FakeUpstream(HANGS), hedge_after_s=0.001)
    task = asyncio.create_task(page.finish(ask()))
    while page.asked() != "a1 b1":
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [upstream.open for upstream in page.upstreams.values()] == [0, 0]
    assert page.attempts() == [("a", "answer", "abort"), ("b", "hedge", "abort")]


class Farewell(FakeUpstream):
    """Says what an answer used some time after its client has left."""

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        try:
            await asyncio.Event().wait()
            yield Finish(reason="stop")
        finally:
            await asyncio.sleep(0.03)
            tab.usage = Usage(prompt_tokens=7)


async def test_what_the_loser_used_is_in_the_ledger_and_does_not_delay_the_winner() -> None:
    page = Page(Farewell(), FakeUpstream(), hedge_after_s=0.001)
    async with aclosing(page.run(ask())) as events:
        await anext(events)
        assert page.ledger.entries == []
        assert [event async for event in events][-1].reason == "stop"
    assert [attempt.usage.prompt_tokens for attempt in page.ledger.entries[-1].attempts] == [7, 2]


@pytest.mark.feature("hedging", "exact cache")
async def test_the_cache_notes_the_route_of_the_winner() -> None:
    page = Page(FakeUpstream(Script(delay_s=0.1)), FakeUpstream(HANGS), hedge_after_s=0.005)
    page.pipeline = dataclasses.replace(page.pipeline, cache=AnswerCache(CacheSettings(exact="on")))
    request = replace(ask(), sampling=Sampling(temperature=0.0))
    for _ in range(2):
        await page.finish(request)
    assert page.attempts() == [("a", "cache", "stop")]


@pytest.mark.parametrize(
    ("limits", "calls"),
    [({}, 1), ({"hedge_after_s": 1.0}, 2), ({"first_token_s": 1.0}, 3), ({"first_token_s": 1.0, "attempts": 2}, 2)],
)
async def test_the_worst_case_counts_runners_of_a_race_and_calls_that_were_given_up(limits: dict[str, float], calls: int) -> None:
    page = Page(FakeUpstream(), FakeUpstream(), FakeUpstream(), **limits)
    dispatch = page.pipeline.dispatch
    most = await dispatch.most(ask(max_tokens=5), await page.pipeline.router.choose(ask()))
    assert (most.prompt_tokens, most.completion_tokens, most.calls) == (2, 5, calls)


# Replicas


@pytest.mark.feature("replicas")
async def test_replicas_share_what_is_under_way() -> None:
    page = Page(FakeUpstream(), FakeUpstream(), FakeUpstream())
    async with AsyncExitStack() as open_streams:
        for number in range(9):
            events = await open_streams.enter_async_context(aclosing(page.run(ask(f"prompt {number}"))))
            await anext(events)
        assert page.asked() == "a3 b3 c3"
    await page.finish(ask("all have left"))
    assert page.asked() == "a4 b3 c3"
    assert "'a' has the least to do of 3 replicas" in page.decision().why


async def test_what_has_ended_weighs_nothing() -> None:
    page = Page(FakeUpstream(Script(), FAILS, BREAKS_OFF, Script()), FakeUpstream())
    for number in range(4):
        await page.finish(ask(f"prompt {number}"))
    async with aclosing(page.run(ask("left"))) as events:
        await anext(events)
    await page.finish(ask("prompt 5"))
    assert page.asked() == "a6 b1"  # b when a failed, and nobody had anything to do


async def test_a_long_prompt_weighs_more_than_a_short_one() -> None:
    page = Page(FakeUpstream(), FakeUpstream())
    async with AsyncExitStack() as open_streams:
        for prompt in ("long " * 1000, "1", "2", "3"):
            events = await open_streams.enter_async_context(aclosing(page.run(ask(prompt, max_tokens=10))))
            await anext(events)
        assert page.asked() == "a1 b3"


async def test_the_next_turn_goes_where_the_conversation_is_known() -> None:
    page = Page(FakeUpstream(), FakeUpstream())
    async with aclosing(page.run(ask("keeps a busy"))) as busy:
        await anext(busy)
        await page.finish(chat("Be kind.", "Hello"))
    await page.finish(chat("Be kind.", "Hello", "Hi!", "And now?"))
    assert page.asked() == "a1 b2"
    assert page.decision().why == "serves 'fake'; 'b' of 2 replicas has seen this prompt's beginning"
    await page.finish(chat("Be kind.", "Hello", tenant="another"))
    assert page.asked() == "a2 b2"  # what one tenant's prompts are is nobody else's to know


async def test_a_replica_with_far_more_to_do_loses_its_conversation() -> None:
    page = Page(FakeUpstream(), FakeUpstream())
    await page.finish(chat("", "Hello"))
    async with aclosing(page.run(ask("x" * 100_000))) as busy:
        await anext(busy)
        await page.finish(chat("", "Hello", "Hi", "again"))
    assert page.asked() == "a2 b1"


async def test_a_replica_that_is_not_ready_comes_last() -> None:
    page = Page(FakeUpstream(), FakeUpstream())
    page.upstreams["a"].state = Health(state="restarting")
    await page.finish(ask())
    assert page.asked() == "b1"


async def test_a_replica_that_said_that_it_is_full_is_spared_for_as_long_as_it_asked() -> None:
    page = Page(FakeUpstream(Script(error=Overloaded("full", retry_after_s=5)), Script()), FakeUpstream())
    for now_s, asked in ((0.0, "a1 b1"), (4.9, "a1 b2"), (5.0, "a2 b2")):
        page.now_s = now_s
        await page.finish(ask(f"at {now_s}"))
        assert page.asked() == asked


@pytest.mark.feature("replicas", "aliases")
async def test_models_of_an_alias_keep_their_order_whatever_they_have_to_do() -> None:
    page = Page(FakeUpstream(model="large"), FakeUpstream(model="small"))
    large, small = Route(upstream="a", model="large"), Route(upstream="b", model="small")
    ordered = Decision(route=large, candidates=(large, small))

    class Alias(FixedRouter):
        async def choose(self, request: Request, judge: Judge = unheard) -> Decision:
            return ordered

    page.pipeline = Pipeline(dispatch=page.pipeline.dispatch, router=Alias({}), ledger=page.ledger)
    async with aclosing(page.run(ask("one"))) as first:
        await anext(first)
        await page.finish(ask("two"))
    assert page.asked() == "a2"


# Whatever happens

SCRIPTS = (Script(), FAILS, BREAKS_OFF, Script(delay_s=0.002), Script(error=Overloaded("full")), Script(error=InvalidRequest("no")), HANGS)


@given(
    upstreams=st.lists(st.lists(st.sampled_from(SCRIPTS), min_size=1, max_size=3), min_size=1, max_size=3),
    hedge=st.sampled_from([None, 0.001]),
    requests=st.integers(1, 4),
)
@settings(deadline=None, max_examples=60)
def test_one_answer_few_attempts_and_nothing_left_open(upstreams: list[list[Script]], hedge: float | None, requests: int) -> None:
    async def scenario() -> None:
        fakes = [FakeUpstream(*scripts) for scripts in upstreams]
        page = Page(*fakes, hedge_after_s=hedge, first_token_s=0.005, attempts=3, breaker_failures=2)

        async def one() -> list[Event]:
            async with aclosing(page.run(ask())) as events:
                return [event async for event in events]

        for events in await asyncio.gather(*(one() for _ in range(requests))):
            assert [isinstance(event, Finish) for event in events] == [False] * (len(events) - 1) + [True]
            text = "".join(event.text for event in events if isinstance(event, Delta))
            assert "Hello, world.".startswith(text)
            assert text == "Hello, world." or events[-1].failure is not None
        assert [fake.open for fake in fakes] == [0] * len(fakes)
        for entry in page.ledger.entries:
            assert len(entry.attempts) <= 3
            assert Counter(attempt.reason for attempt in entry.attempts)["stop"] <= 1 + (hedge is not None)
            assert entry.finish.cost_usd in (None, Decimal(0))
        assert sum(len(entry.attempts) for entry in page.ledger.entries) == sum(len(fake.requests) for fake in fakes)

    asyncio.run(scenario())


# The worst case


class Elsewhere(FakeUpstream):
    """Another server's model, whose tokenizer is not known here."""

    tokenize = property()  # type: ignore[assignment]

    def __init__(self, context: int) -> None:
        super().__init__()
        self._card = replace(self._card, max_model_len=context)


async def test_a_prompt_of_unknown_length_takes_nothing_from_the_worst_answer() -> None:
    page = Page(Elsewhere(1000))
    request = ask("word " * 300, max_tokens=600)  # 1500 bytes; perhaps 300 tokens, and then 600 more fit
    most = await page.pipeline.dispatch.most(request, await page.pipeline.router.choose(request))
    assert (most.prompt_tokens, most.completion_tokens) == (1501, 600)


@pytest.mark.parametrize("contexts", [(100, 9000), (9000, 100)])
async def test_the_worst_case_is_that_of_every_replica(contexts: tuple[int, int]) -> None:
    page = Page(*map(Elsewhere, contexts))
    most = await page.pipeline.dispatch.most(ask(), await page.pipeline.router.choose(ask()))
    assert most.completion_tokens == 9000
