"""Keeps keys within their limits: admit, reserve the worst case, settle what was used.

`Limiter` is the pipeline's `Admission` over any store of counters. What happens while a store cannot be reached is the store's
own wrapper's business (`counters.outage`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from penstock.core.config import LimitSettings
from penstock.core.errors import BudgetExceeded, DatabaseDown, LimitsDown, PriceUnknown, RateLimited
from penstock.core.types import Attempt, Limits, Principal
from penstock.meter.admission import Hold, Unlimited
from penstock.meter.counters.account import DAY_S, NANO, Claim, Refusal, Seed, month_start, nano_usd, needs_hold
from penstock.meter.counters.make import make_counters
from penstock.meter.counters.memory import MemoryCounters
from penstock.meter.counters.protocol import Counters

log = logging.getLogger(__name__)

NO_LIMITS = Limits()
FREE = Unlimited()
REUSED_S = 30.0
WARN_AGAIN_S = 3600.0

Spent = Callable[[float], Mapping[str, Decimal]]  # dollars by key id since a unix time; blocks; may raise DatabaseDown


class Limiter:
    """Admission by the limits of each principal. `spent` tells the ledger's totals, where the store does not know them."""

    def __init__(
        self,
        counters: Counters,
        settings: LimitSettings = LimitSettings(),  # noqa: B008
        spent: Spent | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counters = counters
        self.allow_unknown_price = settings.allow_unknown_price
        self._budget_when_down = settings.budget_when_down
        self._clock = clock
        self._totals = Totals(spent or _nothing, REUSED_S if isinstance(counters, MemoryCounters) else 0.0, clock)
        self._warned: dict[str, float] = {}

    async def admit(self, principal: Principal, request_id: str) -> Hold:
        limits = principal.limits
        if limits == NO_LIMITS:
            return FREE
        claim = Claim(account=principal.key_id, hold=request_id, limits=limits)
        if refusal := await self.counters.admit(claim):
            raise _refused(refusal, claim, principal)
        return LimitHold(self, principal, claim) if needs_hold(limits) else FREE

    def needs_worst_case(self, principal: Principal) -> bool:
        return principal.limits.tokens_per_minute is not None or principal.limits.has_budget

    async def close(self) -> None:
        await self.counters.close()

    async def reserve(self, claim: Claim) -> Refusal | None:
        """Reserve on the claim's hold, with what the ledger knows to be spent where the counters do not. Raises LimitsDown."""
        refusal = await self.counters.reserve(claim)
        if refusal is None or refusal.control != "unseeded":
            return refusal
        try:
            seed = await self._totals.of(claim.account)
        except LimitsDown:
            if self._budget_when_down == "refuse":
                raise
            unlimited = replace(claim.limits, budget_day_usd=None, budget_month_usd=None)
            return await self.counters.reserve(replace(claim, limits=unlimited))
        return await self.counters.reserve(replace(claim, seed=seed))

    async def settle_left(self, attempts: Sequence[Attempt]) -> None:
        """Settle requests that a dead gateway had recorded: those that it had settled already are not counted again. Raises LimitsDown."""
        by_request: dict[tuple[str, str], list[Attempt]] = {}
        for attempt in attempts:
            if attempt.key_id:
                by_request.setdefault((attempt.key_id, attempt.request_id), []).append(attempt)
        for (account, request_id), rows in by_request.items():
            tokens = sum(row.used_tokens for row in rows)
            nano = sum(nano_usd(row.cost_usd) for row in rows if row.cost_usd is not None)
            await self.counters.settle(Claim(account=account, hold=request_id, limits=NO_LIMITS, tokens=tokens, nano=nano))

    def warn(self, refusal: Refusal, claim: Claim, principal: Principal) -> None:
        """Say, once an hour for each key, that a budget that only warns is spent."""
        now = self._clock()
        if now - self._warned.get(claim.account, 0.0) >= WARN_AGAIN_S:
            self._warned[claim.account] = now
            log.warning("%s; let pass, for its budget only warns", _refused(refusal, claim, principal).message)


class LimitHold:
    """One admitted request. The store's hold has the same name."""

    __slots__ = ("_claim", "_limiter", "_principal", "warning")

    def __init__(self, limiter: Limiter, principal: Principal, claim: Claim) -> None:
        self._limiter = limiter
        self._principal = principal
        self._claim = claim
        self.warning: str | None = None  # a budget that only warns is spent

    async def reserve(self, tokens: int, cost_usd: Decimal | None) -> None:
        limiter, asked = self._limiter, self._claim
        if cost_usd is None and asked.limits.has_budget and not limiter.allow_unknown_price:
            hint = "set prices.machine_usd_per_hour for engines of your own, or prices.file for others; or limits.allow_unknown_price"
            raise PriceUnknown(f"the key {_name(self._principal)} has a budget and the price of this model is unknown", hint=hint)
        nano = 0 if cost_usd is None else nano_usd(cost_usd)
        claim = Claim(account=asked.account, hold=asked.hold, limits=asked.limits, tokens=tokens, nano=nano)
        refusal = await limiter.reserve(claim)
        if refusal is None:
            self._claim = claim
        elif refusal.warned:
            self._claim = claim
            self.warning = f"the {refusal.control}'s budget is spent"
            limiter.warn(refusal, claim, self._principal)
        else:
            raise _refused(refusal, claim, self._principal)

    async def settle(self, tokens: int, cost_usd: Decimal | None) -> None:
        """A cost that nobody knows counts as what was reserved for it."""
        claim = self._claim
        nano = claim.nano if cost_usd is None else nano_usd(cost_usd)
        try:
            await self._limiter.counters.settle(
                Claim(account=claim.account, hold=claim.hold, limits=claim.limits, tokens=tokens, nano=nano)
            )
        except LimitsDown as error:
            log.warning("request %s is not settled: %s", claim.hold, error)
        except Exception:
            log.exception("request %s is not settled", claim.hold)


def make_limiter(settings: LimitSettings, data_dir: Path, hold_s: float, spent: Spent | None = None) -> Limiter:
    """The limiter of `settings`. Connects when first used. What a request of a gateway that died has reserved comes
    free again after `hold_s`: longer than a request can last.

    Raises ConfigError for counters that are unknown, MissingExtra for Redis without its package.
    """
    return Limiter(make_counters(settings, data_dir, hold_s), settings, spent)


class Totals:
    """What the ledger says is spent, asked in a thread, for all keys at once. Whoever asks during one reading shares the next.

    Counters in memory start with what others have spent before; `reuse_s` old is new enough for them, but never of another day.
    """

    def __init__(self, spent: Spent, reuse_s: float, clock: Callable[[], float]) -> None:
        self._spent = spent
        self._reuse_s = reuse_s
        self._clock = clock  # unix seconds
        self._lock = asyncio.Lock()
        self._read_s = float("-inf")  # monotonic
        self._read_day = -1.0
        self._day: Mapping[str, Decimal] = {}
        self._month: Mapping[str, Decimal] = {}

    async def of(self, account: str) -> Seed:
        """This UTC day's and month's. Raises LimitsDown."""
        asked_s = time.monotonic()
        async with self._lock:
            while self._read_s < asked_s - self._reuse_s or self._read_day != self._clock() // DAY_S:
                reading_s, now = time.monotonic(), self._clock()
                try:
                    self._day, self._month = await asyncio.to_thread(self._read, now)
                except DatabaseDown as error:  # the ledger logs why; where its database is, is no client's business
                    raise LimitsDown("what the key has spent is not known: the ledger is down", hint="try again in a moment") from error
                self._read_s, self._read_day = reading_s, now // DAY_S
            return Seed(nano_usd(self._day.get(account, Decimal(0))), nano_usd(self._month.get(account, Decimal(0))))

    def _read(self, now: float) -> tuple[Mapping[str, Decimal], Mapping[str, Decimal]]:
        return self._spent(now // DAY_S * DAY_S), self._spent(month_start(now))


def _nothing(since: float) -> Mapping[str, Decimal]:
    return {}


def _refused(refusal: Refusal, claim: Claim, principal: Principal) -> RateLimited:
    """The error that a client sees: what, the limit, what counts now."""
    limits, key, wait_s = claim.limits, _name(principal), refusal.retry_after_s
    if refusal.control == "requests":
        message = f"the key {key} has made {refusal.counted} requests within a minute; its most is {limits.requests_per_minute}"
        return RateLimited(message, hint="wait, or ask for a higher limit", retry_after_s=wait_s)
    if refusal.control == "concurrent":
        message = f"the key {key} has {refusal.counted} requests under way; its most is {limits.concurrent_requests}"
        return RateLimited(message, hint="wait for one of them to end", retry_after_s=wait_s)
    if refusal.control == "tokens":
        allowed = f"of its {limits.tokens_per_minute} a minute {refusal.counted} are used or reserved"
        message = f"this request of the key {key} may take {claim.tokens} tokens; {allowed}"
        return RateLimited(message, hint="ask for fewer tokens with max_tokens" + (", or wait" if wait_s else ""), retry_after_s=wait_s)
    budget = limits.budget_day_usd if refusal.control == "day" else limits.budget_month_usd
    spent, cost = (format(Decimal(nano).scaleb(-NANO).normalize(), "f") for nano in (refusal.counted, claim.nano))
    message = f"this request of the key {key} may cost ${cost}; of its ${budget} a {refusal.control} ${spent} is spent or reserved"
    return BudgetExceeded(message, hint=f"the next UTC {refusal.control} begins at nothing; smaller max_tokens cost less")


def _name(principal: Principal) -> str:
    return repr(principal.name) if principal.name else principal.key_id
