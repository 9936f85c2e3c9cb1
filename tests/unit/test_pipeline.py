"""What happens to a request: exactly one Finish, exactly one record, and nothing left open, whatever happens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from decimal import Decimal
from itertools import count

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from penstock.cache import AnswerCache, Found
from penstock.core.config import CacheSettings, DispatchSettings
from penstock.core.errors import EngineDied, InvalidRequest, Overloaded
from penstock.core.types import (
    Decision,
    Delta,
    EngineUse,
    Event,
    Finish,
    Health,
    Judge,
    Judgement,
    Limits,
    Principal,
    PromptInfo,
    Request,
    Route,
    Sampling,
    Usage,
    unheard,
)
from penstock.guard import AllowAll, Checked
from penstock.meter import MemoryLedger
from penstock.meter.counters import MemoryCounters
from penstock.meter.limits import Limiter
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace import Ended, Rerouted, Tab, Trace, TraceEvent
from penstock.trace.metrics import Metrics
from penstock.upstream import Dispatch, Upstream, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script


class Recorded(MemoryLedger):
    """A ledger that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Ended] = []

    def record(self, ended: Ended) -> None:
        super().record(ended)
        self.entries.append(ended)


def pipeline(*upstreams: Upstream, **parts: object) -> Pipeline:
    named = {f"upstream-{number}": upstream for number, upstream in enumerate(upstreams)}
    defaults: dict[str, object] = {"router": FixedRouter(routes_by_model(named)), "ledger": Recorded()}
    trace = parts.get("trace")
    return Pipeline(dispatch=Dispatch(named, trace=trace), **(defaults | parts))


def ask(model: str = "fake", *, max_tokens: int | None = None, **fields: object) -> Request:
    return Request(id="r1", model=model, prompt="Hi", sampling=Sampling(max_tokens=max_tokens), **fields)


async def events_of(pipeline: Pipeline, request: Request) -> list[Event]:
    async with aclosing(pipeline.run(request)) as events:
        return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def only_finish(events: list[Event]) -> Finish:
    """The one Finish, which must be the last event."""
    finishes = [event for event in events if isinstance(event, Finish)]
    assert finishes == events[-1:]
    return finishes[0]


def only_entry(pipeline: Pipeline) -> Ended:
    (entry,) = pipeline.ledger.entries
    return entry


async def test_an_answer_is_streamed_finished_and_recorded_once() -> None:
    page = pipeline(FakeUpstream())
    events = await events_of(page, ask())
    assert isinstance(events[0], PromptInfo)
    assert text_of(events) == "Hello, world."
    finish = only_finish(events)
    assert (finish.reason, finish.usage) == ("stop", Usage(prompt_tokens=2, completion_tokens=13))
    assert only_entry(page).finish == finish


async def test_an_unknown_model_names_the_closest_and_those_served() -> None:
    page = pipeline(FakeUpstream(model="penstock-mini"), FakeUpstream(model="other"))
    finish = only_finish(await events_of(page, ask("penstok-mini")))
    assert finish.failure is not None
    assert (finish.failure.status, finish.failure.code, finish.failure.param) == (404, "model_not_found", "model")
    assert "did you mean 'penstock-mini'" in (finish.failure.hint or "")
    assert "other" in (finish.failure.hint or "")
    assert only_entry(page).decision is None


async def test_a_refused_input_computes_nothing() -> None:
    class RefuseAll(AllowAll):
        async def check(self, request: Request, judge: Judge) -> Checked:
            judge(refusal := Judgement(room="guard", rule="none", action="refuse", why="closed today"))
            return Checked(request=request, refusal=refusal)

    upstream = FakeUpstream()
    page = pipeline(upstream, guard=RefuseAll())
    finish = only_finish(await events_of(page, ask()))
    assert finish.reason == "content_filter"
    assert finish.failure is not None
    assert "closed today" in finish.failure.message
    assert upstream.requests == []
    assert only_entry(page).finish == finish


async def test_a_redacted_input_is_what_the_upstream_sees() -> None:
    class Redact(AllowAll):
        async def check(self, request: Request, judge: Judge) -> Checked:
            judge(Judgement(room="guard", rule="pii", action="redact"))
            return Checked(request=ask(tenant="redacted"))

    upstream = FakeUpstream()
    await events_of(pipeline(upstream, guard=Redact()), ask())
    assert [request.tenant for request in upstream.requests] == ["redacted"]


async def test_who_counts_tokens_sees_no_more_than_who_answers() -> None:
    class Careful(AllowAll):
        async def check(self, request: Request, judge: Judge) -> Checked:
            refusal = Judgement(room="guard", rule="none", action="refuse", why="not this") if request.prompt == "no" else None
            return Checked(request=replace(request, prompt="[NAME_1]"), refusal=refusal)

    page = pipeline(FakeUpstream(), guard=Careful())
    assert await page.count_tokens(ask()) == len("[NAME_1]")
    with pytest.raises(InvalidRequest, match="not this"):
        await page.count_tokens(replace(ask(), prompt="no"))


async def test_a_guard_may_cut_the_output_short() -> None:
    class CutAfterFirst(AllowAll):
        async def watch(self, checked: Checked, events: AsyncGenerator[Event, None], judge: Judge) -> AsyncGenerator[Event, None]:
            async for event in events:
                yield event
                if isinstance(event, Delta):
                    break
            yield Finish(reason="content_filter")

    upstream = FakeUpstream()
    page = pipeline(upstream, guard=CutAfterFirst())
    events = await events_of(page, ask())
    assert text_of(events) == "Hello"
    assert only_finish(events).reason == "content_filter"
    assert upstream.open == 0
    assert only_entry(page).finish.usage.completion_tokens == 5


class Remember:
    """A cache of one answer."""

    def __init__(self) -> None:
        self.kept: tuple[Event, ...] | None = None

    async def find(self, request: Request, judge: Judge) -> Found:
        return Found(state="miss") if self.kept is None else Found(state="hit", events=self.kept)

    async def keep(self, found: Found, events: AsyncGenerator[Event, None], tab: Callable[[], Tab]) -> AsyncGenerator[Event, None]:
        seen: list[Event] = []
        async for event in events:
            seen.append(event)
            if isinstance(event, Finish):
                self.kept = tuple(seen)
            yield event

    async def done(self, found: Found, *, good: bool) -> None:
        self.was_good = good

    async def close(self) -> None:
        pass


async def test_a_cache_hit_answers_without_an_upstream() -> None:
    upstream = FakeUpstream()
    page = pipeline(upstream, cache=Remember())
    first, second = await events_of(page, ask()), await events_of(page, ask())
    assert text_of(first) == text_of(second)
    assert only_finish(second).reason == "stop"
    assert len(upstream.requests) == 1
    assert len(page.ledger.entries) == 2


@pytest.mark.parametrize("error", [EngineDied("gone"), Overloaded("full")])
async def test_the_next_route_is_tried_while_nothing_was_sent(error: Exception) -> None:
    told: list[TraceEvent] = []
    page = pipeline(FakeUpstream(Script(error=error)), FakeUpstream(), trace=Trace(told.append))
    events = await events_of(page, ask())
    assert text_of(events) == "Hello, world."
    assert only_finish(events).reason == "stop"
    decision = only_entry(page).decision
    assert decision is not None
    assert decision.route == Route(upstream="upstream-1", model="fake")
    assert [event.route.upstream for event in told if isinstance(event, Rerouted)] == ["upstream-0"]


async def test_a_failure_after_something_was_sent_ends_the_answer() -> None:
    second = FakeUpstream()
    page = pipeline(FakeUpstream(Script(error=EngineDied("gone"), error_after=2)), second)
    events = await events_of(page, ask())
    assert text_of(events) == "Hello,"
    finish = only_finish(events)
    assert finish.reason == "error"
    assert finish.failure is not None
    assert (finish.failure.code, finish.failure.retryable) == ("engine_died", True)
    assert finish.usage == Usage(prompt_tokens=2, completion_tokens=6)  # what was seen to be used
    assert second.requests == []


async def test_a_failure_that_no_retry_can_mend_is_not_retried() -> None:
    second = FakeUpstream()
    finish = only_finish(await events_of(pipeline(FakeUpstream(Script(error=InvalidRequest("no"))), second), ask()))
    assert finish.failure is not None
    assert finish.failure.status == 400
    assert second.requests == []


async def test_the_last_route_s_failure_is_the_answer() -> None:
    page = pipeline(FakeUpstream(Script(error=EngineDied("gone"))), FakeUpstream(Script(error=Overloaded("full", retry_after_s=3))))
    finish = only_finish(await events_of(page, ask()))
    assert finish.failure is not None
    assert (finish.failure.code, finish.failure.retry_after_s) == ("overloaded", 3)


async def test_a_bug_is_a_500_that_tells_the_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    page = pipeline(FakeUpstream(Script(error=ValueError("secret detail"))))
    finish = only_finish(await events_of(page, ask()))
    assert finish.failure is not None
    assert (finish.failure.status, finish.failure.code) == (500, "internal_error")
    assert "secret" not in finish.failure.message
    assert "secret detail" in caplog.text
    assert only_entry(page).finish == finish


async def test_an_upstream_that_ends_without_a_finish_is_a_bug() -> None:
    class Silent(FakeUpstream):
        async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
            yield Delta(text="and")

    finish = only_finish(await events_of(pipeline(Silent()), ask()))
    assert finish.failure is not None
    assert "without a Finish" in finish.failure.message


async def test_nothing_follows_the_finish() -> None:
    class Chatty(FakeUpstream):
        async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
            yield Finish(reason="stop")
            yield Delta(text="more")
            yield Finish(reason="stop")

    page = pipeline(Chatty())
    assert len(await events_of(page, ask())) == 1
    assert page.ledger.finished == {"stop": 1}


async def test_a_client_that_leaves_frees_the_upstream_and_is_recorded() -> None:
    upstream = FakeUpstream()
    page = pipeline(upstream)
    async with aclosing(page.run(ask())) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
        assert upstream.open == 1
    assert upstream.open == 0
    entry = only_entry(page)
    assert entry.finish.reason == "abort"
    assert entry.finish.usage == Usage(prompt_tokens=2, completion_tokens=5)


async def test_a_cancelled_task_frees_the_upstream_and_is_recorded() -> None:
    upstream = FakeUpstream(Script(hang_after=1))
    page = pipeline(upstream)
    task = asyncio.create_task(events_of(page, ask()))
    await asyncio.sleep(0.01)
    assert upstream.open == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert upstream.open == 0
    assert page.ledger.finished == {"abort": 1}


async def test_a_client_that_leaves_at_the_finish_is_recorded_once() -> None:
    page = pipeline(FakeUpstream())
    async with aclosing(page.run(ask())) as events:
        async for event in events:
            if isinstance(event, Finish):
                break
    assert page.ledger.finished == {"stop": 1}


@pytest.mark.parametrize("hang_after", [0, 2])
async def test_the_deadline_ends_a_request_that_hangs(hang_after: int) -> None:
    upstream = FakeUpstream(Script(hang_after=hang_after))
    page = pipeline(upstream)
    finish = only_finish(await events_of(page, ask(deadline_s=0.02)))
    assert finish.failure is not None
    assert (finish.failure.status, finish.failure.code) == (504, "deadline_exceeded")
    assert "0.02" in finish.failure.message
    assert upstream.open == 0
    assert only_entry(page).finish == finish


def ticking(step_s: float) -> Iterator[float]:
    return count(100.0, step_s)


async def test_the_deadline_ends_a_request_that_never_pauses() -> None:
    class Endless(FakeUpstream):
        async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
            while True:
                yield Delta(text="and ")

    page = pipeline(Endless(), clock=ticking(1.0).__next__, deadline_s=9.0)
    finish = only_finish(await events_of(page, ask()))
    assert finish.failure is not None
    assert finish.failure.code == "deadline_exceeded"


async def test_a_request_s_own_deadline_goes_before_the_server_s() -> None:
    page = pipeline(FakeUpstream(), clock=ticking(1.0).__next__, deadline_s=1.0)
    assert only_finish(await events_of(page, ask(deadline_s=1000.0))).reason == "stop"


async def test_a_timeout_inside_an_upstream_is_not_the_deadline() -> None:
    page = pipeline(FakeUpstream(Script(error=TimeoutError("socket"))))
    finish = only_finish(await events_of(page, ask(deadline_s=60.0)))
    assert finish.failure is not None
    assert finish.failure.code == "internal_error"


async def test_timings_come_from_the_clock() -> None:
    now = [10.0]

    class Slow(FakeUpstream):
        async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
            for wait, piece in ((2.0, "a"), (0.5, "b"), (1.5, "c")):
                now[0] += wait
                yield Delta(text=piece, token_ids=(1,))
            now[0] += 4.0
            yield Finish(reason="stop")

    page = pipeline(Slow(), clock=lambda: now[0])
    timings = only_finish(await events_of(page, ask())).timings
    assert (timings.ttft_s, timings.tpot_s, timings.e2e_s) == (2.0, 1.0, 8.0)


async def test_as_many_requests_end_as_were_accepted() -> None:
    registry = CollectorRegistry()
    failing = (Script(error=EngineDied("gone")), Script(error=ValueError("bug")), Script(error=Overloaded("full"), error_after=1))
    page = pipeline(FakeUpstream(*failing, Script()), trace=Trace(Metrics(registry, ["fake"])))
    for request in (*(ask() for _ in failing), ask(), ask("unknown"), ask(deadline_s=0.0), ask(max_tokens=1)):
        await events_of(page, request)
    async with aclosing(page.run(ask())) as events:
        await anext(events)  # and leaves
    counts: Counter[str] = Counter()
    for sample in (sample for metric in registry.collect() for sample in metric.samples):
        counts[sample.name] += int(sample.value)
    assert counts["penstock:requests_accepted_total"] == 8
    assert counts["vllm:request_success_total"] == 8
    assert page.ledger.finished == {"stop": 1, "error": 5, "length": 1, "abort": 1}


async def test_a_ledger_that_fails_does_not_spoil_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Full(MemoryLedger):
        def record(self, ended: Ended) -> None:
            raise OSError("disk full")

    assert only_finish(await events_of(pipeline(FakeUpstream(), ledger=Full()), ask())).reason == "stop"
    assert "disk full" in caplog.text


def test_health_names_the_upstream_without_which_a_model_cannot_answer() -> None:
    well, ill, spare = FakeUpstream(model="a"), FakeUpstream(model="b"), FakeUpstream(model="b")
    page = pipeline(well, ill)
    assert page.health() == Health(state="ready")
    ill.state = Health(state="restarting", why="the engine died")
    assert page.health() == Health(state="restarting", why="upstream-1: the engine died")
    assert pipeline(well, ill, spare).health() == Health(state="ready")
    spare.state = ill.state
    assert not pipeline(well, ill, spare).health().ready


async def test_defaults_are_the_model_s_own() -> None:
    page = pipeline(FakeUpstream(default_sampling=Sampling(temperature=0.3)))
    assert page.default_sampling("fake").temperature == 0.3
    assert page.default_sampling("unknown") == Sampling()


async def test_a_router_s_second_choice_is_not_tried_twice() -> None:
    class Twice:
        async def choose(self, request: Request, judge: Judge = unheard) -> Decision:
            route = Route(upstream="upstream-0", model="fake")
            return Decision(route=route, candidates=(route, route))

    upstream = FakeUpstream(Script(error=EngineDied("gone")))
    await events_of(pipeline(upstream, router=Twice()), ask())
    assert len(upstream.requests) == 1


async def test_tokens_of_a_prompt_go_there_and_back() -> None:
    page = pipeline(FakeUpstream())
    info = await page.tokenize(ask())
    assert info == PromptInfo(token_ids=(72, 105), text="Hi")
    assert await page.detokenize(Request(id="r", model="fake", prompt_token_ids=info.token_ids)) == "Hi"
    assert await page.token_strings(ask(), info.token_ids) == ("H", "i")


async def test_tokens_count_against_a_limit_for_every_call_and_not_for_a_cached_answer() -> None:
    slow, quick = FakeUpstream(Script(pieces=("slow",), delay_s=0.2)), FakeUpstream(Script(pieces=("ok",)))
    named = {"a": slow, "b": quick}
    limiter = Limiter(MemoryCounters(600))
    pipeline = Pipeline(
        dispatch=Dispatch(named, DispatchSettings(hedge_after_s=0.005)),
        router=FixedRouter(routes_by_model(named)),
        admission=limiter,
        cache=AnswerCache(CacheSettings(exact="on")),
    )
    key = Principal(key_id="k", limits=Limits(tokens_per_minute=1000))
    request = replace(ask(max_tokens=4), principal=key, sampling=Sampling(max_tokens=4, temperature=0.0))
    for _ in range(3):
        assert only_finish(await events_of(pipeline, request)).reason == "stop"
    refused = only_finish(await events_of(pipeline, replace(request, prompt="x" * 992))).failure
    assert refused is not None
    assert "of its 1000 a minute 6 are used" in refused.message  # the prompt of the loser, the prompt and the answer of the winner


class ByUpstream:
    """A request costs what its upstream is called."""

    def cost(self, route: Route, usage: Usage, use: EngineUse | None) -> Decimal | None:
        return Decimal(0)

    def worst(self, route: Route, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        return Decimal(route.upstream)


class Chosen(FixedRouter):
    """Gives its first choice apart from the others."""

    async def choose(self, request: Request, judge: Judge = unheard) -> Decision:
        routes = (await super().choose(request)).candidates
        return Decision(route=routes[0], candidates=routes[1:])


async def test_the_first_choice_is_reserved_for_also_where_it_is_not_among_the_others() -> None:
    named = {"9": FakeUpstream(), "1": FakeUpstream()}
    key = Principal(key_id="k", limits=Limits(budget_day_usd=Decimal(5)))
    parts = {"router": Chosen(routes_by_model(named)), "admission": Limiter(MemoryCounters(600)), "pricing": ByUpstream()}
    pipeline = Pipeline(dispatch=Dispatch(named), **parts)
    failure = only_finish(await events_of(pipeline, ask(max_tokens=1, principal=key))).failure
    assert failure is not None
    assert failure.code == "insufficient_quota"
