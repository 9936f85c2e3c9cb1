"""While the store of counters is away each limit goes by its policy, and nothing is counted twice or forgotten after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from penstock.core.config import LimitSettings
from penstock.core.errors import BudgetExceeded, LimitsDown, RateLimited
from penstock.core.types import Limits, Principal
from penstock.meter.counters import Claim, MemoryCounters, Refusal, outage
from penstock.meter.counters.outage import PolicyCounters
from penstock.meter.limits import Limiter

TENTH = Decimal("0.1")


class Store(MemoryCounters):
    """One that can be away: before an operation, or after it was done and before the answer. `hangs`: instead of an error."""

    def __init__(self) -> None:
        super().__init__(660)
        self.away = self.away_after = self.hangs = False
        self.asked = 0

    async def admit(self, claim: Claim) -> Refusal | None:
        await self._leave(self.away)
        refusal = await super().admit(claim)
        await self._leave(self.away_after)
        return refusal

    async def reserve(self, claim: Claim) -> Refusal | None:
        await self._leave(self.away)
        refusal = await super().reserve(claim)
        await self._leave(self.away_after)
        return refusal

    async def settle(self, claim: Claim) -> None:
        await self._leave(self.away)
        await super().settle(claim)
        await self._leave(self.away_after)

    async def _leave(self, away: bool) -> None:
        self.asked += 1
        if away and self.hangs:
            await asyncio.sleep(3600)
        if away:
            raise LimitsDown("gone")


class Limited:
    """A limiter over a store, with each policy as given."""

    def __init__(self, **policies: str) -> None:
        settings = LimitSettings(timeout_s=0.05, **policies)  # type: ignore[arg-type]
        self.store = Store()
        self.counters = PolicyCounters(self.store, MemoryCounters(660), settings)
        self.limiter = Limiter(self.counters, settings)
        self._names = iter(range(1000))

    async def ask(self, principal: Principal, *, tokens: int = 10, cost: Decimal = TENTH, used: Decimal | None = None) -> None:
        hold = await self.limiter.admit(principal, str(next(self._names)))
        try:
            await hold.reserve(tokens, cost)
        except Exception:
            await hold.settle(0, Decimal(0))
            raise
        await hold.settle(tokens, cost if used is None else used)

    async def back(self) -> None:
        """The store is there again, and that was noticed."""
        self.store.away = self.store.away_after = False
        async with asyncio.timeout(5):
            while self.counters._is_down or self.counters._unsettled:
                await asyncio.sleep(0.005)


@pytest.fixture
async def limited(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[type[Limited]]:
    monkeypatch.setattr(outage, "RETRY_S", 0.01)
    made: list[Limited] = []

    class Made(Limited):
        def __init__(self, **policies: str) -> None:
            super().__init__(**policies)
            made.append(self)

    yield Made
    for each in made:
        each.store.away = each.store.away_after = False
        await each.limiter.close()


def key(**limits: object) -> Principal:
    return Principal(key_id="k", name="ana", limits=Limits(**limits))  # type: ignore[arg-type]


async def test_refuse_means_503_for_keys_that_have_the_limit_and_for_no_others(limited: type[Limited]) -> None:
    made = limited(requests_when_down="refuse")
    made.store.away = True
    with pytest.raises(LimitsDown, match="the counters of limits cannot be reached") as refused:
        await made.ask(key(requests_per_minute=5))
    assert "gone" not in str(refused.value)  # the store's own words are for the log
    await made.ask(key(tokens_per_minute=100))
    await made.ask(key())


async def test_each_limit_has_a_policy_of_its_own(limited: type[Limited]) -> None:
    made = limited(requests_when_down="allow", tokens_when_down="local", budget_when_down="refuse")
    made.store.away = True
    for _ in range(5):
        await made.ask(key(requests_per_minute=1))
    await made.ask(key(requests_per_minute=1, tokens_per_minute=15))
    with pytest.raises(RateLimited, match="tokens"):
        await made.ask(key(requests_per_minute=1, tokens_per_minute=15))
    with pytest.raises(LimitsDown):
        await made.ask(key(budget_day_usd=Decimal(1)))


async def test_local_goes_on_from_what_this_process_has_used_already(limited: type[Limited]) -> None:
    made = limited()
    ana = key(requests_per_minute=4)
    for _ in range(3):
        await made.ask(ana)
    made.store.away = True
    await made.ask(ana)
    with pytest.raises(RateLimited):
        await made.ask(ana)


async def test_a_store_that_hangs_is_waited_for_once(limited: type[Limited]) -> None:
    made = limited(requests_when_down="refuse")
    made.store.away = made.store.hangs = True
    with pytest.raises(LimitsDown, match=r"no answer within 0\.05 s"):
        await made.ask(key(requests_per_minute=5))
    asked = made.store.asked
    for _ in range(20):
        with pytest.raises(LimitsDown, match="cannot be reached"):
            await made.limiter.admit(key(requests_per_minute=5), "x")
    assert made.store.asked <= asked + 1  # by whoever looks whether it is back


async def test_what_was_used_in_an_outage_is_counted_when_it_is_over(limited: type[Limited]) -> None:
    made = limited(budget_when_down="local")
    ana = key(budget_day_usd=Decimal(1))
    for _ in range(3):
        await made.ask(ana)
    made.store.away = True
    for _ in range(4):
        await made.ask(ana)
    await made.back()
    for _ in range(3):
        await made.ask(ana)
    with pytest.raises(BudgetExceeded):
        await made.ask(ana)


async def test_a_request_that_began_before_an_outage_is_settled_after_it_once(limited: type[Limited]) -> None:
    made = limited()
    ana = key(budget_day_usd=Decimal(1), concurrent_requests=1)
    hold = await made.limiter.admit(ana, "long")
    await hold.reserve(10, Decimal("0.9"))
    made.store.away = True
    await hold.settle(10, TENTH)
    await made.back()
    await made.ask(ana, cost=Decimal("0.9"))
    with pytest.raises(BudgetExceeded):
        await made.ask(ana, cost=Decimal("0.01"))


@pytest.mark.parametrize("policy", ["local", "refuse"])
async def test_an_operation_whose_answer_was_lost_counts_once(limited: type[Limited], policy: str) -> None:
    made = limited(budget_when_down=policy, concurrent_when_down=policy)
    ana = key(budget_day_usd=Decimal(1), concurrent_requests=1)
    for _ in range(3):
        made.store.away_after = True
        try:
            await made.ask(ana)
            spent = TENTH
        except LimitsDown:
            spent = Decimal(0)
        await made.back()
    await made.ask(ana, cost=Decimal(1) - 3 * spent)
    with pytest.raises(BudgetExceeded):
        await made.ask(ana, cost=Decimal("0.01"))


async def test_a_client_that_leaves_while_the_store_is_asked_keeps_no_place(limited: type[Limited]) -> None:
    made = limited()
    ana = key(concurrent_requests=1)
    made.store.away_after = made.store.hangs = True
    asking = asyncio.create_task(made.limiter.admit(ana, "left"))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await made.back()
    await made.ask(ana)


async def test_a_client_that_leaves_while_its_request_is_settled_is_settled_all_the_same(limited: type[Limited]) -> None:
    made = limited()
    ana = key(concurrent_requests=1, budget_day_usd=Decimal(1))
    hold = await made.limiter.admit(ana, "left")
    await hold.reserve(10, Decimal("0.5"))
    made.store.away = made.store.hangs = True
    settling = asyncio.create_task(hold.settle(10, TENTH))
    await asyncio.sleep(0.01)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    await made.back()
    await made.ask(ana, cost=Decimal("0.9"))
    with pytest.raises(BudgetExceeded):
        await made.ask(ana, cost=Decimal("0.01"))


async def test_a_store_that_has_lost_its_memory_is_told_what_was_spent(limited: type[Limited]) -> None:
    made = limited()
    ana = key(budget_day_usd=Decimal(1))
    made.limiter = Limiter(made.counters, LimitSettings(), lambda since: {"k": Decimal("0.7")})
    await made.ask(ana, cost=Decimal("0.2"))
    made.store._accounts.clear()
    with pytest.raises(BudgetExceeded, match=r"\$0.7 is spent"):
        await made.ask(ana, cost=Decimal("0.4"))
    await made.ask(ana, cost=Decimal("0.3"))


class Slow(Store):
    """Each operation takes a while, and the store does so many at a time."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self._delay_s = delay_s
        self._turns = asyncio.Semaphore(32)

    async def _leave(self, away: bool) -> None:
        async with self._turns:
            await asyncio.sleep(self._delay_s)
            await super()._leave(away)


async def test_many_requests_at_once_are_no_outage(limited: type[Limited], caplog: pytest.LogCaptureFixture) -> None:
    made = limited()
    made.counters._timeout_s = 0.6
    made.counters._store = made.store = Slow(0.05)
    ana = key(concurrent_requests=1000)
    await asyncio.gather(*(made.ask(ana) for _ in range(480)))  # the last would wait for 0.75 s
    assert "outage" not in caplog.text


async def test_an_outage_ends_while_ever_more_requests_come(limited: type[Limited]) -> None:
    made = limited()
    made.counters._timeout_s = 2.0
    ana = key(concurrent_requests=100_000)
    made.store.away = True
    await made.ask(ana)
    made.counters._store = made.store = Slow(0.02)
    coming = True

    async def come() -> None:
        while coming:
            await made.ask(ana)
            await asyncio.sleep(0.005)

    crowd = asyncio.create_task(come())
    async with asyncio.timeout(10):
        while made.counters._is_down:
            await asyncio.sleep(0.01)
    coming = False
    await crowd
    await made.back()
    assert not made.store._accounts["k"].held


async def test_a_settlement_whose_answers_are_lost_again_and_again_counts_once(limited: type[Limited]) -> None:
    made = limited(budget_when_down="local")
    ana = key(budget_day_usd=Decimal(1))
    hold = await made.limiter.admit(ana, "r")
    made.store.away_after = True
    await hold.reserve(10, TENTH)
    await hold.settle(10, TENTH)
    asked = made.store.asked
    async with asyncio.timeout(5):
        while made.store.asked < asked + 9:  # three times it was settled, and nobody was told
            await asyncio.sleep(0.005)
    await made.back()
    await made.ask(ana, cost=Decimal("0.9"))
