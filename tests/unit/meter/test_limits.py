"""Keys stay within their limits, exactly, and are told which one is in the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from penstock.core.config import LimitSettings
from penstock.core.errors import BudgetExceeded, DatabaseDown, LimitsDown, PriceUnknown, RateLimited
from penstock.core.types import Attempt, Limits, Principal, Route, Usage
from penstock.meter.counters import Claim, MemoryCounters
from penstock.meter.counters.sqlite import SQLiteCounters
from penstock.meter.database import Database, SQLite
from penstock.meter.limits import Limiter

NOON = 1_798_804_800.0  # 2027-01-01 12:00 UTC
TENTH = Decimal("0.1")


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Callable[..., Limiter]:
    def make(spent: Callable[[float], Mapping[str, Decimal]] | None = None, **settings: object) -> Limiter:
        return Limiter(MemoryCounters(660, clock=clock), LimitSettings(**settings), spent, clock=clock)  # type: ignore[arg-type]

    return make


@pytest.fixture
def limiter(make: Callable[..., Limiter]) -> Limiter:
    return make()


def key(**limits: object) -> Principal:
    return Principal(key_id="k", name="ana", limits=Limits(**limits))  # type: ignore[arg-type]


@pytest.mark.feature("budgets")
async def test_of_32_at_once_a_budget_for_ten_admits_ten(limiter: Limiter) -> None:
    ana = key(budget_day_usd=Decimal(1))

    async def ask(number: int) -> bool:
        hold = await limiter.admit(ana, str(number))
        try:
            await hold.reserve(10, TENTH)
        except BudgetExceeded:
            await hold.settle(0, Decimal(0))
            return False
        await asyncio.sleep(0.01)
        await hold.settle(10, TENTH)
        return True

    assert sum(await asyncio.gather(*(ask(number) for number in range(32)))) == 10


async def test_what_was_reserved_and_not_used_can_be_used(limiter: Limiter) -> None:
    ana = key(budget_day_usd=Decimal(1))
    for number in range(10):
        hold = await limiter.admit(ana, str(number))
        await hold.reserve(10, Decimal("0.55"))
        await hold.settle(10, Decimal("0.05"))
    last = await limiter.admit(ana, "last")
    with pytest.raises(BudgetExceeded, match=r"may cost \$0.55; of its \$1 a day \$0.5 is spent"):
        await last.reserve(10, Decimal("0.55"))
    await last.reserve(10, Decimal("0.5"))


async def test_budgets_begin_anew_with_the_utc_day_and_month(limiter: Limiter, clock: Clock) -> None:
    ana = key(budget_day_usd=TENTH, budget_month_usd=TENTH * 2)

    async def spend(name: str) -> str:
        hold = await limiter.admit(ana, name)
        try:
            await hold.reserve(10, TENTH)
        except BudgetExceeded as error:
            return "month" if " a month " in error.message else "day"
        await hold.settle(10, TENTH)
        return "spent"

    assert [await spend("1"), await spend("2")] == ["spent", "day"]
    clock.now += 86_400
    assert [await spend("3"), await spend("4")] == ["spent", "day"]
    clock.now += 86_400
    assert await spend("5") == "month"
    clock.now += 30 * 86_400
    assert await spend("6") == "spent"


async def test_requests_per_minute_hold_in_any_minute(limiter: Limiter, clock: Clock) -> None:
    ana = key(requests_per_minute=3)
    admitted: list[float] = []
    waits_s: list[float] = []
    for tick in range(800):
        clock.now = NOON + tick * 0.33
        try:
            await limiter.admit(ana, str(tick))
            admitted.append(clock.now)
        except RateLimited as error:
            waits_s.append(error.retry_after_s or 0)
    assert all(0 < wait_s <= 61 for wait_s in waits_s)
    assert len(admitted) >= 12
    assert all(later - earlier >= 60 for earlier, later in zip(admitted, admitted[3:], strict=False))


async def test_after_the_wait_that_was_told_there_is_room(limiter: Limiter, clock: Clock) -> None:
    ana = key(requests_per_minute=2)
    for number in range(2):
        await limiter.admit(ana, str(number))
        clock.now += 7.4
    with pytest.raises(RateLimited) as refused:
        await limiter.admit(ana, "3")
    clock.now += refused.value.retry_after_s or 0
    await limiter.admit(ana, "4")


@pytest.mark.feature("rate limits")
async def test_tokens_per_minute_count_what_is_reserved_and_what_was_used(limiter: Limiter, clock: Clock) -> None:
    ana = key(tokens_per_minute=100)
    first, second = await limiter.admit(ana, "1"), await limiter.admit(ana, "2")
    await first.reserve(70, None)
    with pytest.raises(RateLimited, match="may take 40 tokens; of its 100 a minute 70 are used or reserved"):
        await second.reserve(40, None)
    await first.settle(50, None)
    await second.reserve(40, None)
    await second.settle(40, None)
    with pytest.raises(RateLimited) as never:
        await (await limiter.admit(ana, "3")).reserve(101, None)
    assert never.value.retry_after_s is None  # however long one waits
    clock.now += 61
    await (await limiter.admit(ana, "4")).reserve(100, None)


async def test_a_place_is_free_again_once_settled_or_when_its_gateway_has_died(limiter: Limiter, clock: Clock) -> None:
    ana = key(concurrent_requests=2)
    holds = [await limiter.admit(ana, str(number)) for number in range(2)]
    with pytest.raises(RateLimited, match="has 2 requests under way; its most is 2"):
        await limiter.admit(ana, "3")
    await holds[0].settle(0, Decimal(0))
    await limiter.admit(ana, "4")
    with pytest.raises(RateLimited):
        await limiter.admit(ana, "5")
    clock.now += 660
    await limiter.admit(ana, "6")


async def test_a_key_without_limits_is_not_counted(limiter: Limiter) -> None:
    assert not limiter.needs_worst_case(key())
    assert not limiter.needs_worst_case(key(requests_per_minute=1))
    assert limiter.needs_worst_case(key(tokens_per_minute=1))
    assert limiter.needs_worst_case(key(budget_month_usd=Decimal(1)))
    hold = await limiter.admit(key(), "1")
    await hold.reserve(10**9, Decimal(10**9))
    await hold.settle(10**9, None)


async def test_keys_do_not_share_their_limits(limiter: Limiter) -> None:
    limits = Limits(requests_per_minute=1)
    for id in ("a", "b", "c"):
        await limiter.admit(Principal(key_id=id, limits=limits), "1")


async def test_an_unknown_price_is_refused_where_there_is_a_budget(limiter: Limiter, make: Callable[..., Limiter]) -> None:
    ana = key(budget_month_usd=Decimal(1))
    with pytest.raises(PriceUnknown):
        await (await limiter.admit(ana, "1")).reserve(10, None)
    await (await make(allow_unknown_price=True).admit(ana, "1")).reserve(10, None)


async def test_a_cost_that_stays_unknown_counts_as_what_was_reserved(limiter: Limiter) -> None:
    ana = key(budget_day_usd=Decimal(1))
    hold = await limiter.admit(ana, "1")
    await hold.reserve(10, Decimal("0.9"))
    await hold.settle(10, None)
    with pytest.raises(BudgetExceeded):
        await (await limiter.admit(ana, "2")).reserve(10, Decimal("0.2"))


async def test_a_budget_that_warns_lets_pass_and_says_so_once(limiter: Limiter, caplog: pytest.LogCaptureFixture) -> None:
    ana = key(budget_day_usd=TENTH, budget_action="warn")
    holds = [await limiter.admit(ana, str(number)) for number in range(4)]
    for hold in holds:
        await hold.reserve(10, TENTH)
        await hold.settle(10, TENTH)
    assert [hold.warning for hold in holds] == [None, *["the day's budget is spent"] * 3]  # type: ignore[attr-defined]
    assert caplog.text.count("its budget only warns") == 1


async def test_a_new_process_knows_from_the_ledger_what_was_spent(make: Callable[..., Limiter]) -> None:
    midnight, first = NOON - 43_200, NOON - 43_200
    asked: list[float] = []

    def spent(since: float) -> Mapping[str, Decimal]:
        asked.append(since)
        return {"k": Decimal("0.95"), "other": Decimal(5)}

    limiter = make(spent)
    with pytest.raises(BudgetExceeded, match=r"\$0.95 is spent"):
        await (await limiter.admit(key(budget_day_usd=Decimal(1)), "1")).reserve(10, TENTH)
    await (await limiter.admit(key(budget_day_usd=Decimal(1)), "2")).reserve(10, Decimal("0.05"))
    assert asked == [midnight, first]


async def test_budgets_go_by_the_policy_while_the_ledger_is_down(make: Callable[..., Limiter]) -> None:
    def down(since: float) -> Mapping[str, Decimal]:
        raise DatabaseDown("no connection to 10.0.0.5")

    ana = key(budget_day_usd=Decimal(1), tokens_per_minute=15)
    with pytest.raises(LimitsDown, match="the ledger is down") as refused:
        await (await make(down).admit(ana, "1")).reserve(10, TENTH)
    assert "10.0.0.5" not in str(refused.value)
    allowing = make(down, budget_when_down="allow")
    await (await allowing.admit(ana, "1")).reserve(10, Decimal(100))
    with pytest.raises(RateLimited, match="tokens"):
        await (await allowing.admit(ana, "2")).reserve(10, TENTH)


async def test_what_a_dead_gateway_recorded_is_settled_once(limiter: Limiter) -> None:
    ana = key(budget_day_usd=Decimal(1))
    hold = await limiter.admit(ana, "r")
    await hold.reserve(10, Decimal("0.9"))
    route = Route(upstream="u", model="m")
    rows = [
        Attempt(id=f"r#{n}", request_id="r", number=n, purpose="answer", key_id="k", tenant="", model="m", route=route, started_at=NOON,
                reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1), cost_usd=TENTH)
        for n in range(2)
    ]  # fmt: skip
    for _ in range(3):
        await limiter.settle_left(rows)
    await (await limiter.admit(ana, "next")).reserve(10, Decimal("0.8"))
    with pytest.raises(BudgetExceeded):
        await (await limiter.admit(ana, "over")).reserve(10, Decimal("0.01"))


async def test_what_was_spent_yesterday_is_not_taken_for_today_s(make: Callable[..., Limiter], clock: Clock) -> None:
    midnight = NOON + 43_200
    limiter = make(lambda since: {"k": Decimal("0.95")} if since < midnight else {})
    clock.now = midnight - 1
    await (await limiter.admit(Principal(key_id="other", limits=Limits(budget_day_usd=Decimal(1))), "1")).reserve(10, TENTH)
    clock.now = midnight + 1
    await (await limiter.admit(key(budget_day_usd=Decimal(1)), "2")).reserve(10, Decimal(1))


class SlowStart(Database):
    """The first transaction begins late, as that of a thread that has to wait for its turn."""

    late = True

    def transaction(self) -> AbstractContextManager[None]:
        late, self.late = self.late, False
        time.sleep(0.1 * late)
        return super().transaction()


async def test_a_client_that_leaves_while_sqlite_is_busy_keeps_no_place(tmp_path: Path) -> None:
    counters = SQLiteCounters(SlowStart(SQLite(tmp_path / "counters.db")), 660)
    claim = Claim(account="k", hold="left", limits=Limits(concurrent_requests=1))
    asking = asyncio.create_task(counters.admit(claim))
    await asyncio.sleep(0.01)
    asking.cancel()
    await counters.settle(claim)
    await asyncio.sleep(0.2)
    assert await counters.admit(replace(claim, hold="next")) is None
    await counters.close()
