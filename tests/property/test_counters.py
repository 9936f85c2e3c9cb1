"""Memory, SQLite and Redis count alike, and all like a plain model that remembers everything."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import RedisServer, redis_server

from penstock.core.types import Limits
from penstock.meter.counters import Claim, Counters, MemoryCounters, Refusal, Seed
from penstock.meter.counters.sqlite import SQLiteCounters
from penstock.meter.database import open_database

HOLD_S = 30.0
NEW_YEAR = 1_798_761_600.0  # 2027-01-01 00:00 UTC: a day, a month and a year begin
RUNS = itertools.count()


@dataclass
class Model:
    """Counts by looking through all that ever happened."""

    limits: Limits
    requests: list[int] = field(default_factory=list)  # the second of each
    tokens: list[tuple[int, int]] = field(default_factory=list)
    spent: list[tuple[int, int]] = field(default_factory=list)  # day, nano-dollars
    holds: dict[str, list[float]] = field(default_factory=dict)  # expires, tokens, nano, day
    unheld: dict[str, float] = field(default_factory=dict)

    def live(self, now: float) -> list[list[float]]:
        return [hold for hold in self.holds.values() if hold[0] > now]

    def admit(self, id: str, now: float) -> tuple[str, int] | None:
        counted = sum(second >= int(now) - 60 for second in self.requests)
        if self.limits.requests_per_minute is not None and counted >= self.limits.requests_per_minute:
            return "requests", counted
        places = self.limits.concurrent_requests
        if places is not None and len(self.live(now)) >= places:
            return "concurrent", len(self.live(now))
        if self.limits.requests_per_minute is not None:
            self.requests.append(int(now))
        if places is not None or self.limits.tokens_per_minute is not None or self.limits.has_budget:
            self.holds[id] = [now + HOLD_S, 0, 0, now // 86400]
        return None

    def reserve(self, id: str, tokens: int, nano: int, now: float) -> tuple[str, int] | None:
        live, day = self.live(now), int(now) // 86400
        used = sum(count for second, count in self.tokens if second >= int(now) - 60) + int(sum(hold[1] for hold in live))
        if self.limits.tokens_per_minute is not None and used + tokens > self.limits.tokens_per_minute:
            return "tokens", used
        held = int(sum(hold[2] for hold in live))
        by_day = held + sum(count for on, count in self.spent if on == day)
        by_month = held + sum(count for on, count in self.spent if month(on) == month(day))
        over = None
        if self.limits.budget_day_usd is not None and by_day + nano > self.limits.budget_day_usd * 10**9:
            over = ("day", by_day)
        elif self.limits.budget_month_usd is not None and by_month + nano > self.limits.budget_month_usd * 10**9:
            over = ("month", by_month)
        if over is None or self.limits.budget_action == "warn":
            expires = self.holds[id][0] if id in self.holds and self.holds[id][0] > now else now + HOLD_S
            self.holds[id] = [expires, tokens, nano, day]
        return over

    def settle(self, id: str, tokens: int, nano: int, unheld: bool, now: float) -> None:
        self.holds = {id: hold for id, hold in self.holds.items() if hold[0] > now - 86400}
        hold = self.holds.pop(id, None)
        if unheld:
            if self.unheld.get(id, 0) > now:
                return
            self.unheld[id] = now + 86400
        elif hold is None:
            return
        if tokens:
            self.tokens.append((int(now), tokens))
        self.spent.append((int(now) // 86400 if hold is None else int(hold[3]), nano))


def month(day: int) -> tuple[int, int]:
    return time.gmtime(day * 86400)[:2]


# Round numbers meet their limits exactly, and the edges of windows, holds, days and months; "settle" and "reserve" name a request by
# how many came after it.
places = st.integers(0, 3)
tokens = st.integers(0, 6).map(lambda count: count * 10)
nanos = st.integers(0, 5).map(lambda count: count * 100_000_000)
waits = st.sampled_from([0.25, 1.0, 1.0, 4.5, 5.0, 29.0, 30.0, 31.0, 59.0, 60.0, 61.0, 86_370.0, 86_400.0, 2_592_000.0])
admits = st.tuples(st.just("admit"))
reserves = st.tuples(st.just("reserve"), places, tokens, nanos)
settles = st.tuples(st.just("settle"), places, tokens, nanos, st.booleans())
steps = st.lists(
    st.one_of(st.tuples(st.just("wait"), waits), admits, admits, reserves, reserves, settles, settles), min_size=20, max_size=60
)
bounds = st.builds(
    Limits,
    requests_per_minute=st.none() | st.integers(1, 6),
    tokens_per_minute=st.none() | st.integers(2, 15).map(lambda count: count * 10),
    concurrent_requests=st.none() | st.integers(1, 5),
    budget_day_usd=st.none() | st.integers(0, 12).map(lambda count: Decimal(count) / 10),
    budget_month_usd=st.none() | st.integers(0, 12).map(lambda count: Decimal(count) / 10),
    budget_action=st.sampled_from(["refuse", "refuse", "warn"]),
)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), durable=False) as server:
        yield server


def seen(refusal: Refusal | None) -> tuple[str, int] | None:
    return None if refusal is None else (refusal.control, refusal.counted)


async def compare(make: list[Any], limits: Limits, plan: list[tuple[Any, ...]]) -> None:
    """Walk the plan with all stores; ids settled once get a new name, as ids do."""
    now = [NEW_YEAR - 5.0]
    stores: list[Counters] = [made(lambda: now[0]) for made in make]
    model, account, admitted = Model(limits), f"key-{next(RUNS)}", ["0"]
    try:
        for action, *values in plan:
            if action == "wait":
                now[0] += values[0]
                continue
            if action == "admit":
                admitted.append(str(len(admitted)))
            hold = admitted[-1 - min(values[0], len(admitted) - 1)] if values else admitted[-1]
            amount = {"tokens": values[1], "nano": values[2]} if values else {}
            claim = Claim(account=account, hold=hold, limits=limits, seed=Seed(0, 0), unheld=values[3:] == [True], **amount)
            if action == "settle":
                model.settle(hold, **amount, unheld=claim.unheld, now=now[0])
                for store in stores:
                    await store.settle(claim)
            elif action == "admit":
                expected = model.admit(hold, now[0])
                agree([await store.admit(claim) for store in stores], expected, admitted, not expected)
            elif model.holds.get(hold, [0, 1])[1:3] == [0, 0]:  # a request reserves once
                expected = model.reserve(hold, **amount, now=now[0])
                agree([await store.reserve(claim) for store in stores], expected, admitted, True)
    finally:
        for store in stores:
            await store.close()


def agree(refusals: list[Refusal | None], expected: tuple[str, int] | None, admitted: list[str], keeps: bool) -> None:
    """All as the model says, and each store like the others in what the model does not know."""
    assert [seen(refusal) for refusal in refusals] == [expected] * len(refusals)
    assert len({refusal and refusal.warned for refusal in refusals}) == 1
    waits_s = {refusal and refusal.retry_after_s and round(refusal.retry_after_s, 3) for refusal in refusals}
    assert len(waits_s) == 1, waits_s
    if not keeps:
        admitted.pop()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=bounds, plan=steps)
def test_three_stores_count_like_the_model(redis: RedisServer, tmp_path: Path, limits: Limits, plan: list[tuple[Any, ...]]) -> None:
    from penstock.meter.counters.redis import RedisCounters

    make = [
        lambda clock: MemoryCounters(HOLD_S, clock=clock),
        lambda clock: SQLiteCounters(open_database("memory", tmp_path), HOLD_S, clock=clock),
        lambda clock: RedisCounters(redis.url, HOLD_S, timeout_s=5, clock=clock),
    ]
    asyncio.run(compare(make, limits, plan))


@settings(max_examples=150, deadline=None)
@given(limits=bounds, plan=steps)
def test_counters_in_memory_count_like_the_model(limits: Limits, plan: list[tuple[Any, ...]]) -> None:
    asyncio.run(compare([lambda clock: MemoryCounters(HOLD_S, clock=clock)], limits, plan))


@settings(max_examples=200, deadline=None)
@given(cost=st.decimals(0, 10_000, places=15))
def test_a_cost_is_never_rounded_down(cost: Decimal) -> None:
    from penstock.meter.counters.account import nano_usd

    assert 0 <= nano_usd(cost) - cost * 10**9 < 1
