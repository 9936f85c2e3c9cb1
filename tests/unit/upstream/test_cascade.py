"""The cascade: who is asked, what goes out, what is written down and what stays open, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal

import pytest
from msgspec.structs import replace

from penstock.cache import AnswerCache
from penstock.core.config import CacheSettings
from penstock.core.errors import InvalidRequest, Overloaded, UpstreamFailed
from penstock.core.types import (
    Decision,
    Delta,
    EngineUse,
    Escalation,
    Event,
    Finish,
    Judge,
    Limits,
    Options,
    Principal,
    PromptInfo,
    Request,
    Route,
    Sampling,
    Tool,
    Usage,
)
from penstock.meter import MemoryLedger
from penstock.meter.counters import MemoryCounters
from penstock.meter.limits import Limiter
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.router.confidence import Calibration, Curve
from penstock.trace import Ended, Tab
from penstock.upstream import Cascade, Dispatch, Vote, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script

SMALL, LARGE = Route(upstream="s", model="small"), Route(upstream="l", model="large")
SURE, UNSURE = Script(pieces=("One", " two"), logprobs=(-0.0001,)), Script(pieces=("Hmm", " so", " maybe"), logprobs=(-0.0001, -2.0))
BETTER = Script(pieces=("Bet", "ter"))
# Confident while the answer's tokens are nearly certain: 0.98 for SURE, 0.03 for UNSURE.
BY_TOTAL = Calibration(
    model="small", larger="large", intercept=0.0, curves={"total": Curve((-3.0, 7.0), (-4.0, 4.0))}, longest=50, targets=()
)


class Kept(MemoryLedger):
    """A ledger that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Ended] = []

    def record(self, ended: Ended) -> None:
        self.entries.append(ended)


class Escalates(FixedRouter):
    """First the small model, then the large one."""

    escalation = Escalation(decision=Decision(route=LARGE, candidates=(LARGE,), why="the large one"), trust=0.8)

    async def choose(self, request: Request, judge: Judge) -> Decision:
        return Decision(route=SMALL, candidates=(SMALL,), why="small first", escalation=self.escalation)


class ByTokens:
    """A cent per token of an answer, ten at the large model; a prompt costs nothing."""

    def cost(self, route: Route, usage: Usage, use: EngineUse | None = None) -> Decimal | None:
        return self.worst(route, usage.prompt_tokens, usage.completion_tokens)

    def worst(self, route: Route, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        return completion_tokens * (Decimal("0.10") if route == LARGE else Decimal("0.01"))


class Page:
    """A pipeline over a small and a large model."""

    def __init__(self, small: Script | FakeUpstream, large: Script | FakeUpstream = BETTER, **parts: object) -> None:
        self.small = FakeUpstream(small, model="small") if isinstance(small, Script) else small
        self.large = FakeUpstream(large, model="large") if isinstance(large, Script) else large
        self.ledger = Kept()
        upstreams = {"s": self.small, "l": self.large}
        source = Cascade(Vote(Dispatch(upstreams)), {"small": BY_TOTAL})
        self.router = Escalates(routes_by_model(upstreams))
        self.pipeline = Pipeline(dispatch=source, router=self.router, ledger=self.ledger, pricing=ByTokens(), **parts)  # type: ignore[arg-type]

    async def events(self, request: Request) -> list[Event]:
        async with aclosing(self.pipeline.run(request)) as events:
            return [event async for event in events]

    async def text(self, request: Request) -> str:
        return text_of(await self.events(request))

    @property
    def ended(self) -> Ended:
        (ended,) = self.ledger.entries
        return ended

    def attempts(self) -> list[tuple[str, str, str]]:
        return [(attempt.route.upstream, attempt.purpose, attempt.reason) for attempt in self.ended.attempts]

    def said(self) -> list[str]:
        return [judgement.action for judgement in self.ended.judgements]

    def nothing_open(self) -> bool:
        return self.small.open == self.large.open == 0


def ask(**fields: object) -> Request:
    return Request(**{"id": "r", "model": "auto", "prompt": "Hi", "sampling": Sampling(), **fields})  # type: ignore[arg-type]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_a_trusted_answer_goes_out_piece_by_piece_and_the_large_model_is_not_asked() -> None:
    page = Page(SURE)
    events = await page.events(ask())
    assert [type(event) for event in events] == [PromptInfo, Delta, Delta, Finish]
    assert text_of(events) == "One two"
    assert page.attempts() == [("s", "answer", "stop")]
    (judgement,) = page.ended.judgements
    assert (judgement.room, judgement.rule, judgement.action, judgement.shadow) == ("router", "cascade", "kept", False)
    assert judgement.score is not None and judgement.score > 0.8
    assert judgement.why == f"confidence {judgement.score:.3f} ≥ 0.800"
    assert page.ended.decision is not None and page.ended.decision.route == SMALL
    assert page.ended.decision.why.startswith("small first; confidence")


async def test_an_answer_that_is_not_trusted_is_replaced_and_both_are_paid_for() -> None:
    page = Page(UNSURE)
    events = await page.events(ask())
    assert text_of(events) == "Better"
    assert [attempt[:2] for attempt in page.attempts()] == [("s", "cascade"), ("l", "answer")]
    assert page.said() == ["escalated"]
    assert page.ended.finish.usage.completion_tokens == len("Better")
    small, large = page.ended.attempts
    assert page.ended.finish.cost_usd == large.cost_usd + small.cost_usd  # type: ignore[operator]
    assert small.cost_usd == small.usage.completion_tokens * Decimal("0.01") > 0
    assert page.ended.decision is not None and page.ended.decision.route == LARGE
    assert page.nothing_open()


async def test_it_is_stopped_as_soon_as_it_cannot_recover() -> None:
    long = Script(pieces=("a", "b", *("c",) * 40), logprobs=(-0.0001, -3.0, -0.0001))
    page = Page(long)
    assert await page.text(ask()) == "Better"
    assert page.ended.attempts[0].usage.completion_tokens == 2
    assert page.ended.attempts[0].reason == "abort"
    assert "after 2 tokens" in page.ended.judgements[0].why
    assert page.ended.judgements[0].score is not None and page.ended.judgements[0].score < 0.8


@pytest.mark.parametrize("wanted", [None, 0, 2, 7])
@pytest.mark.parametrize("small", [SURE, UNSURE])
@pytest.mark.feature("cascade", "logprobs")
async def test_the_client_gets_the_log_probabilities_that_it_asked_for(wanted: int | None, small: Script) -> None:
    page = Page(small)
    events = await page.events(ask(sampling=Sampling(logprobs=wanted)))
    deltas = [event for event in events if isinstance(event, Delta)]
    widths = {None if delta.logprobs is None else len(delta.logprobs[0].top) for delta in deltas}
    assert widths == {wanted}


@pytest.mark.feature("cascade", "streaming")
async def test_nothing_is_sent_before_the_answer_is_trusted() -> None:
    page = Page(Script(pieces=("One", " two"), logprobs=(-0.0001,), hang_after=1))
    async with aclosing(page.pipeline.run(ask())) as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
    assert page.nothing_open()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (Script(error=UpstreamFailed("no connection")), "'small' failed: no connection"),
        (Script(error=Overloaded("full")), "'small' failed: full"),
        (Script(error=InvalidRequest("too long")), "'small' failed: too long"),
        (Script(pieces=("One", " two"), logprobs=(-0.0001,), error=UpstreamFailed("cut"), error_after=1), "'small' failed: cut"),
    ],
)
@pytest.mark.feature("cascade", "retries")
async def test_a_first_model_that_fails_is_escalated(script: Script, why: str) -> None:
    page = Page(script)
    assert await page.text(ask()) == "Better"
    assert why in page.ended.judgements[0].why
    assert {purpose for name, purpose, _ in page.attempts() if name == "s"} == {"cascade"}
    assert page.attempts()[-1] == ("l", "answer", "stop")


async def test_an_answer_that_was_cut_off_is_escalated() -> None:
    page = Page(SURE)
    assert await page.text(ask(sampling=Sampling(max_tokens=4))) == "Bett"
    assert page.ended.judgements[0].why == "its answer was cut off"


async def test_without_log_probabilities_there_is_no_trust() -> None:
    class Mute(FakeUpstream):
        async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
            async with aclosing(super().stream(request, route, tab)) as events:
                async for event in events:
                    yield replace(event, logprobs=None) if isinstance(event, Delta) else event

    page = Page(Mute(SURE, model="small"))
    assert await page.text(ask()) == "Better"
    assert page.ended.judgements[0].why == "its answer came without the probabilities of its tokens"


async def test_a_model_without_a_calibration_is_not_asked_at_all() -> None:
    page = Page(SURE)
    page.pipeline.dispatch._calibrations = {}  # type: ignore[attr-defined]
    assert await page.text(ask()) == "Better"
    assert page.attempts() == [("l", "answer", "stop")]
    assert "no calibration" in page.ended.judgements[0].why


@pytest.mark.parametrize("small", [UNSURE, Script(pieces=("Hmm", " so"), logprobs=(-0.0001, -2.0))])
async def test_a_second_model_that_fails_leaves_the_first_ones_answer(small: Script) -> None:
    """Also where the first was stopped before its end: then it is asked once more."""
    page = Page(small, Script(error=Overloaded("full")))
    assert await page.text(ask()) == "".join(small.pieces)
    assert page.said() == ["escalated", "kept"]
    assert page.ended.judgements[1].why == "the larger model failed: full"
    assert page.ended.decision is not None and page.ended.decision.route == SMALL
    assert page.nothing_open()


async def test_a_second_model_that_fails_gives_the_whole_first_answer_without_asking_again() -> None:
    page = Page(SURE, Script(error=Overloaded("full")))
    page.router.escalation = replace(page.router.escalation, trust=0.9999)
    by_end = Calibration(
        model="small", larger="large", intercept=0.0, curves={"length": Curve((0.0, 9.0), (0.0, 9.9))}, longest=20_000, targets=()
    )
    page.pipeline.dispatch._calibrations = {"small": by_end}  # type: ignore[attr-defined]
    assert await page.text(ask()) == "One two"
    assert page.attempts() == [("s", "answer", "stop"), ("l", "answer", "error")]
    assert page.ended.finish.cost_usd == Decimal("0.07")


@pytest.mark.parametrize("small", [UNSURE, Script(pieces=("Hmm", " so"), logprobs=(-0.0001, -2.0))])
async def test_an_answer_that_stands_in_for_a_failed_one_is_not_given_again(small: Script) -> None:
    page = Page(small, FakeUpstream(Script(error=Overloaded("full")), BETTER, model="large"), cache=AnswerCache(CacheSettings(exact="on")))
    greedy = ask(sampling=Sampling(temperature=0.0))
    assert [await page.text(greedy) for _ in range(3)] == ["".join(small.pieces), "Better", "Better"]
    assert [ended.cache for ended in page.ledger.entries] == ["miss", "miss", "hit"]


async def test_two_models_that_fail_give_the_second_ones_error() -> None:
    page = Page(Script(error=Overloaded("small is full")), Script(error=Overloaded("large is full")))
    finish = (await page.events(ask()))[-1]
    assert isinstance(finish, Finish) and finish.failure is not None
    assert finish.failure.message == "large is full"


async def test_a_second_answer_that_breaks_off_stays_broken() -> None:
    page = Page(UNSURE, Script(error=UpstreamFailed("cut"), error_after=1))
    events = await page.events(ask())
    assert isinstance(events[-1], Finish) and events[-1].failure is not None
    assert text_of(events) == "Hello"


@pytest.mark.parametrize("at", ["first", "second"])
@pytest.mark.feature("cascade", "disconnect")
async def test_a_client_that_leaves_leaves_nothing_open(at: str) -> None:
    page = Page(Script(hang_after=1) if at == "first" else UNSURE, Script(hang_after=1))
    task = asyncio.create_task(page.events(ask()))
    while not (page.small if at == "first" else page.large).open:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert page.nothing_open()
    assert page.ended.finish.reason == "abort"
    assert [attempt.route.upstream for attempt in page.ended.attempts] == (["s"] if at == "first" else ["s", "l"])


async def test_the_deadline_holds_over_both() -> None:
    page = Page(Script(pieces=("a",) * 9, logprobs=(-0.0001,), delay_s=0.05))
    finish = (await page.events(ask(deadline_s=0.06)))[-1]
    assert isinstance(finish, Finish) and finish.failure is not None
    assert finish.failure.code == "deadline_exceeded"
    assert page.nothing_open()


async def test_of_several_choices_the_least_confident_decides() -> None:
    class Second(FakeUpstream):
        """Its second choice is a guess."""

        async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
            async with aclosing(super().stream(request, route, tab)) as events:
                async for event in events:
                    if isinstance(event, Delta) and event.index == 1 and event.logprobs:
                        event = replace(event, logprobs=tuple(replace(token, logprob=-4.0) for token in event.logprobs))
                    yield event

    both = Page(SURE)
    assert await both.text(ask(n=2)) == "OneOne two two"
    assert both.said() == ["kept"]
    one = Page(Second(SURE, model="small"))
    assert await one.text(ask(n=2)) == "BetBetterter"
    assert one.said() == ["escalated"]


@pytest.mark.feature("cascade", "n choices")
async def test_of_several_whole_choices_the_least_confident_decides() -> None:
    class Short(FakeUpstream):
        """Its second choice has one token only, and short answers are not trusted here."""

        async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
            async with aclosing(super().stream(request, route, tab)) as events:
                async for event in events:
                    if isinstance(event, Delta) and event.index == 1 and event.logprobs:
                        event = replace(event, logprobs=event.logprobs[:1] if event.text == "One" else ())
                    yield event

    page = Page(Short(SURE, model="small"))
    by_length = replace(BY_TOTAL, curves={"length": Curve((0.0, 1.5), (-3.0, 3.0))})
    page.pipeline.dispatch._calibrations = {"small": by_length}  # type: ignore[attr-defined]
    assert await page.text(ask(n=2)) == "BetBetterter"
    assert page.ended.judgements[0].why == "confidence 0.047 < 0.800"


async def test_what_a_broken_off_second_answer_used_is_not_the_first_ones() -> None:
    page = Page(UNSURE, Script(hang_after=0))
    task = asyncio.create_task(page.events(ask()))
    while not page.large.open:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert page.ended.attempts[0].usage.completion_tokens > 0
    assert page.ended.finish.usage.completion_tokens == 0


@pytest.mark.parametrize(("tokens", "passes"), [(23, False), (24, True)])
@pytest.mark.feature("cascade", "rate limits")
async def test_a_limit_of_tokens_must_cover_both_answers(tokens: int, passes: bool) -> None:
    """Twice a prompt of two and an answer of ten."""
    page = Page(SURE, admission=Limiter(MemoryCounters(600)))
    principal = Principal(key_id="k", limits=Limits(tokens_per_minute=tokens))
    finish = (await page.events(ask(principal=principal, sampling=Sampling(max_tokens=10))))[-1]
    assert isinstance(finish, Finish)
    assert (finish.failure is None) == passes


@pytest.mark.feature("cascade", "tools")
async def test_tools_are_left_to_a_model_that_calls_them() -> None:
    class Calls(FakeUpstream):
        async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
            async with aclosing(super().stream(request, route, tab)) as events:
                async for event in events:
                    yield replace(event, reason="tool_calls") if isinstance(event, Finish) else event

    page = Page(Calls(SURE, model="small"))
    assert await page.text(ask(tools=(Tool(name="look"),))) == "Better"
    assert page.ended.judgements[0].why == "it called tools, which no calibration weighs"


@pytest.mark.parametrize(("small", "said"), [(SURE, "kept"), (UNSURE, "escalated")])
@pytest.mark.feature("cascade", "shadow", "streaming")
async def test_in_shadow_the_first_answer_streams_and_what_would_have_been_is_written_down(small: Script, said: str) -> None:
    page = Page(small)
    page.router.escalation = replace(page.router.escalation, shadow=True)
    assert await page.text(ask()) == "".join(small.pieces)
    assert not page.large.requests
    (judgement,) = page.ended.judgements
    assert (judgement.action, judgement.shadow) == (said, True)
    assert page.attempts() == [("s", "answer", "stop")]


async def test_in_shadow_the_first_piece_waits_for_nothing() -> None:
    page = Page(Script(hang_after=1))
    page.router.escalation = replace(page.router.escalation, shadow=True)
    async with aclosing(page.pipeline.run(ask())) as events:
        assert isinstance(await anext(events), PromptInfo)
        piece = await anext(events)
        assert isinstance(piece, Delta) and piece.text == "Hello" and piece.logprobs is None


@pytest.mark.parametrize(("budget", "passes"), [("1.09", False), ("1.10", True)])
@pytest.mark.feature("cascade", "budgets")
async def test_a_budget_must_cover_both_answers(budget: str, passes: bool) -> None:
    """Ten tokens of each: ten cents and a dollar."""
    page = Page(SURE, admission=Limiter(MemoryCounters(600)))
    principal = Principal(key_id="k", limits=Limits(budget_day_usd=Decimal(budget)))
    finish = (await page.events(ask(principal=principal, sampling=Sampling(max_tokens=10))))[-1]
    assert isinstance(finish, Finish)
    assert (finish.failure is None) == passes


@pytest.mark.feature("cascade", "voting")
async def test_samples_are_weighed_by_the_answer_that_was_chosen() -> None:
    page = Page(SURE)
    assert await page.text(ask(options=Options(samples=3))) == "One two"
    assert [judgement.rule for judgement in page.ended.judgements] == ["vote", "cascade"]
    assert page.ended.finish.usage.completion_tokens == 3 * len("One two")


async def test_without_an_escalation_the_request_goes_on_as_it_is() -> None:
    upstream = FakeUpstream(SURE, model="small")
    page = Pipeline(dispatch=Cascade(Dispatch({"s": upstream}), {"small": BY_TOTAL}), router=FixedRouter({"small": [SMALL]}))
    request = ask(model="small")
    async with aclosing(page.run(request)) as events:
        assert text_of([event async for event in events]) == "One two"
    assert upstream.requests == [request]
