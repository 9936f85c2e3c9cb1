"""What the page is told: the last quarter of an hour by the second, and the last requests."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from msgspec.structs import replace

from penstock.core.config import PageSettings
from penstock.core.types import (
    Attempt,
    CacheState,
    Decision,
    Failure,
    Finish,
    FinishReason,
    Judgement,
    Message,
    Request,
    Route,
    Timings,
    Usage,
)
from penstock.engine.messages import EngineStats
from penstock.trace import Accepted, Ended, Streamed
from penstock.trace.window import KEPT_S, MOST_ROUTES, MOST_TEXT, Point, Window

ROUTE = Route(upstream="here", model="mini")
START = 1_000_000


class Clock:
    now = float(START)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def window(clock: Clock) -> Window:
    return Window(PageSettings(history=5), clock)


def ask(number: int = 0, **fields: object) -> Request:
    return Request(id=f"r{number}", model="mini", messages=(Message(role="user", content="a secret"),), **fields)  # type: ignore[arg-type]


def end(
    request: Request,
    *,
    reason: FinishReason = "stop",
    tokens: int = 0,
    cost: str | None = "0",
    cache: CacheState = "off",
    route: Route = ROUTE,
    saved: str | None = None,
) -> Ended:
    failure = Failure(status=500, code="upstream_error", message="it broke") if reason == "error" else None
    usage = Usage(prompt_tokens=3, completion_tokens=tokens)
    finish = Finish(
        reason=reason,
        usage=usage,
        timings=Timings(ttft_s=0.1, e2e_s=1.0),
        cost_usd=None if cost is None else Decimal(cost),
        failure=failure,
    )
    attempt = Attempt(
        id="a", request_id=request.id, number=0, purpose="cache", key_id="", tenant="", model="mini", route=route, started_at=0.0,
        reason=reason, saved_usd=None if saved is None else Decimal(saved),
    )  # fmt: skip
    return Ended(request, Decision(route=route, why="it serves it"), finish, attempts=(attempt,), cache=cache, text="an answer")


def run(window: Window, request: Request, ended: Ended, *, gaps_s: tuple[float, ...] = (), ttft_s: float | None = None) -> None:
    window(Accepted(request))
    if ttft_s is not None:
        window(Streamed(request, ROUTE, ttft_s=ttft_s))
    if gaps_s:
        window(Streamed(request, ROUTE, gaps_s=gaps_s))
    window(ended)


def points(window: Window, clock: Clock, step_s: int = 1) -> list[Point]:
    """All that is over."""
    clock.now += 1
    return list(window.points(0, step_s))


def test_a_second_counts_what_ended_in_it(window: Window, clock: Clock) -> None:
    for number, reason in enumerate(("stop", "length", "error", "abort")):
        request = ask(number)
        run(window, request, end(request, reason=reason, cost="0.25"))
    (point,) = points(window, clock)
    assert (point.ended, point.failed, point.left, point.open) == (4, 1, 1, 1)
    assert (point.cost_usd, point.unpriced, point.prompt_tokens) == (1.0, 0, 12)
    assert point.routes == {"here/mini": 4}


def test_an_unknown_price_is_counted_and_is_no_zero(window: Window, clock: Clock) -> None:
    run(window, ask(), end(ask(), cost=None))
    (point,) = points(window, clock)
    assert (point.cost_usd, point.unpriced) == (0.0, 1)


def test_a_cached_answer_counts_as_a_hit_and_as_its_own_route_and_says_what_it_saved(window: Window, clock: Clock) -> None:
    run(window, ask(), end(ask(), cache="hit", saved="0.5"))
    run(window, ask(), end(ask(), cache="miss"))
    run(window, ask(), end(ask(), cache="bypass"))
    (point,) = points(window, clock)
    assert (point.lookups, point.hits, point.saved_usd) == (2, 1, 0.5)
    assert point.routes == {"cache": 1, "here/mini": 2}


def test_what_became_of_requests_is_counted_once_for_each(window: Window, clock: Clock) -> None:
    redacted = Judgement(room="guard", rule="pii", action="redact")
    hit = Judgement(room="cache", rule="semantic", action="hit", score=0.97)
    would = Judgement(room="router", rule="cascade", action="kept", shadow=True)
    miss = Judgement(room="cache", rule="exact", action="miss")
    for judgements in ((redacted, redacted, hit), (redacted, would), (miss,)):
        run(window, ask(), replace(end(ask()), judgements=judgements))
    (point,) = points(window, clock)
    assert point.became == {"redacted": 2, "cached": 1, "shadow": 1}


def test_each_token_counts_once_whether_or_not_it_was_told_of_by_itself(window: Window, clock: Clock) -> None:
    for tokens, gaps in ((10, 9), (10, 4), (10, 0), (1, 0)):  # some upstreams send several in one piece
        request = ask()
        run(window, request, end(request, tokens=tokens), ttft_s=0.1, gaps_s=(0.01,) * gaps)
    (point,) = points(window, clock)
    assert point.output_tokens == 31


def test_percentiles_are_right_within_five_percent(window: Window, clock: Clock) -> None:
    rng = random.Random(5)
    seen = sorted(rng.lognormvariate(-2, 1) for _ in range(2000))
    for value in seen:
        window(Streamed(ask(), ROUTE, ttft_s=value))
        window(Streamed(ask(), ROUTE, gaps_s=(value / 2, value * 1.5)))
    (point,) = points(window, clock)
    for found in (point.ttft_s, point.tpot_s):
        assert found is not None
        assert found == pytest.approx([seen[999], seen[1899], seen[1979]], rel=0.05)


def test_a_second_without_requests_has_no_percentile_and_is_there_all_the_same(window: Window, clock: Clock) -> None:
    window(Streamed(ask(), ROUTE, ttft_s=1.0))
    clock.now += 3
    found = points(window, clock)
    assert [point.at - START for point in found] == [0, 1, 2, 3]
    assert [point.ttft_s is None for point in found] == [False, True, True, True]


def test_longer_steps_add_up_to_the_same(window: Window, clock: Clock) -> None:
    for _ in range(20):
        run(window, ask(), end(ask(), tokens=7, cost="0.1"), ttft_s=0.5)
        clock.now += 1
    fine, coarse = list(window.points(0, 1)), list(window.points(0, 5))
    assert len(coarse) == 4
    assert all(point.at % 5 == 0 and point.span_s == 5 for point in coarse)
    for field in ("ended", "output_tokens", "prompt_tokens"):
        assert sum(getattr(point, field) for point in fine) == sum(getattr(point, field) for point in coarse)
    assert list(window.points(START + 15, 5)) == coarse[3:]


def test_only_seconds_that_are_over_are_told(window: Window, clock: Clock) -> None:
    run(window, ask(), end(ask()))
    assert list(window.points(0, 1)) == []


def test_it_goes_back_a_quarter_of_an_hour_and_remembers_so_many_requests(window: Window, clock: Clock) -> None:
    for number in range(2000):
        request = ask(number)
        run(window, request, end(request))
        clock.now += 1
    assert len(list(window.points(0, 1))) == KEPT_S - 1  # and the one that runs
    assert [kept.number for kept in window.requests()] == [2000, 1999, 1998, 1997, 1996]
    assert [kept.number for kept in window.requests(before=1999, limit=2)] == [1998, 1997]
    assert [kept.number for kept in window.requests(after=1998)] == [2000, 1999]
    assert window.request(1995) is None
    found = window.request(1996)
    assert found is not None
    assert found.ended.request.id == "r1995"


def test_a_pause_longer_than_the_window_leaves_it_empty(window: Window, clock: Clock) -> None:
    run(window, ask(), end(ask()))
    clock.now += 10 * KEPT_S
    found = points(window, clock)
    assert len(found) == KEPT_S - 1
    assert sum(point.ended for point in found) == 0


def test_a_client_cannot_make_it_grow_by_odd_names(window: Window, clock: Clock) -> None:
    for number in range(100):
        run(window, ask(), end(ask(), route=Route(upstream="u", model=f"m{number}")))
    (point,) = points(window, clock)
    assert len(point.routes) <= MOST_ROUTES + 1
    assert sum(point.routes.values()) == 100


def test_two_requests_of_one_id_are_two(window: Window, clock: Clock) -> None:
    first, second = ask(), ask()
    window(Accepted(first))
    window(Accepted(second))
    assert window.num_open == 2
    window(end(first))
    assert [known.request is second for known in window.under_way()] == [True]
    window(end(second))
    assert window.num_open == 0


def test_texts_are_not_kept_unless_asked_for(clock: Clock) -> None:
    forgetful, keeping = Window(PageSettings(), clock), Window(PageSettings(keep_text=True), clock)
    long = Request(id="long", model="mini", prompt="x" * 3 * MOST_TEXT)
    for window in (forgetful, keeping):
        run(window, ask(), Ended(ask(), None, Finish(reason="stop"), text="an answer"))
        run(window, long, end(long))
    assert b"secret" not in repr(forgetful.requests()).encode()
    assert b"an answer" not in repr(forgetful.requests()).encode()
    kept_long, kept = keeping.requests()
    assert (kept.prompt, kept.ended.text) == ("a secret", "an answer")
    assert kept_long.prompt is not None
    assert len(kept_long.prompt) == MOST_TEXT


def test_engines_are_told_as_shares_and_stay_as_they_were_while_they_say_nothing(window: Window, clock: Clock) -> None:
    window.step("mini", EngineStats(busy_s=0.25, kv_usage=0.5, num_running=3, num_waiting=2))
    window.step("mini", EngineStats(busy_s=0.5, kv_usage=0.4, num_running=1, num_waiting=0))
    clock.now += 1
    first, later = points(window, clock)
    assert (first.engines["mini"].busy, first.engines["mini"].kv_usage, first.engines["mini"].waiting) == (0.5, 0.5, 2)
    assert (later.engines["mini"].busy, later.engines["mini"].kv_usage, later.engines["mini"].running) == (0.0, 0.4, 1)


def test_a_step_of_three_seconds_filled_the_three_seconds_before_its_end(window: Window, clock: Clock) -> None:
    window.step("mini", EngineStats(busy_s=0.0))
    clock.now += 5
    window.step("mini", EngineStats(busy_s=3.0))
    busy = [point.engines["mini"].busy for point in points(window, clock)]
    assert busy == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def test_an_engine_that_was_restarted_counts_from_zero_again(window: Window, clock: Clock) -> None:
    window.step("mini", EngineStats(busy_s=100.0))
    clock.now += 200
    window.step("mini", EngineStats(busy_s=0.5))
    assert points(window, clock)[-1].engines["mini"].busy == 0.5
