"""What happens to limits while their store cannot be reached: the written policy, control by control.

    refuse  503 for every key that has this limit
    allow   this limit does not hold
    local   this process counts for itself, from what it has let pass itself; n gateways then allow n times the limit

A store that does not answer within `timeout_s` is down. It is asked again once a second. What was used meanwhile is settled
with the store when it is back. In case the store has lost something, the spending that it knows is raised to what the ledger knows:
at once where it knows nothing, else a few seconds later.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import TypeVar

import msgspec

from penstock.core.config import LimitSettings, WhenDown
from penstock.core.errors import LimitsDown
from penstock.core.types import Limits
from penstock.meter.counters.account import Claim, Refusal, needs_hold
from penstock.meter.counters.memory import MemoryCounters
from penstock.meter.counters.protocol import Counters

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_S = 1.0
SETTLED_S = 5.0  # after an outage: by then every gateway has noticed its end
MOST_UNSETTLED = 100_000
TOGETHER = 32  # operations under way at a time; the others wait for their turn, which is no sign that the store is down
UNREACHABLE = "the counters of limits cannot be reached"
ADMISSION = ("requests_per_minute", "concurrent_requests")
NOTHING = Claim(account="", hold="", limits=Limits())  # settling it changes nothing: it asks whether the store is there
RESERVATION = ("tokens_per_minute", "budget_day_usd", "budget_month_usd")


class PolicyCounters:
    """A store, and beside it a `mirror` of what this process uses, which takes over where the policy says "local"."""

    def __init__(self, store: Counters, mirror: MemoryCounters, settings: LimitSettings) -> None:
        self._store = store
        self._mirror = mirror
        self._timeout_s = settings.timeout_s
        self._policy = _by_limit(settings)
        self._reduced: dict[Limits, Limits] = {}
        self._is_down = False
        self._outages = 0
        self._back_s = 0.0  # when the last outage was over
        self._seeded_in: dict[str, int] = {}  # by account: after how many outages its spending was last raised to the ledger's
        self._outside: set[str] = set()  # holds that the store may not know
        self._unsettled: deque[Claim] = deque()
        self._recovery: asyncio.Task[None] | None = None
        self._turns = asyncio.Semaphore(TOGETHER)

    async def admit(self, claim: Claim) -> Refusal | None:
        try:
            refusal = await self._ask(self._store.admit(claim))
        except LimitsDown as error:
            return await self._admit_here(claim, error)
        except asyncio.CancelledError:
            self._settle_later(claim)  # the store may have taken it
            raise
        if refusal is None:
            await self._mirror.admit(self._local(claim, enforced=False))
        return refusal

    async def reserve(self, claim: Claim) -> Refusal | None:
        if claim.limits.has_budget and claim.seed is None and self._may_have_lost(claim.account):
            return Refusal(control="unseeded")
        try:
            refusal = await self._ask(self._store.reserve(claim))
        except LimitsDown as error:
            self._check(claim.limits, RESERVATION, error)
            self._outside.add(claim.hold)
            return await self._mirror.reserve(self._local(claim))
        if claim.seed is not None and time.monotonic() >= self._back_s + SETTLED_S:
            self._seeded_in[claim.account] = self._outages
        if refusal is None or refusal.warned:
            await self._mirror.reserve(self._local(claim, enforced=False))
        return refusal

    async def settle(self, claim: Claim) -> None:
        await self._mirror.settle(claim)
        if claim.hold in self._outside:
            self._outside.discard(claim.hold)
            claim = msgspec.structs.replace(claim, unheld=True)
        try:
            await self._ask(self._store.settle(claim))
        except LimitsDown:
            self._settle_later(claim)
        except asyncio.CancelledError:
            self._settle_later(claim)
            raise

    async def close(self) -> None:
        await self._stop_recovery()
        with contextlib.suppress(LimitsDown):
            await self._settle_first(len(self._unsettled))
        await self._stop_recovery()  # a store that is down has begun it again
        if self._unsettled:
            log.warning("%d requests are not settled: the counters are down", len(self._unsettled))
        await self._store.close()

    def _may_have_lost(self, account: str) -> bool:
        """Whether the store may have forgotten spending in an outage; asked when every gateway has settled what it had to settle."""
        return self._seeded_in.get(account, 0) != self._outages and time.monotonic() >= self._back_s + SETTLED_S

    async def _admit_here(self, claim: Claim, error: LimitsDown) -> Refusal | None:
        try:
            self._check(claim.limits, ADMISSION, error)
        except LimitsDown:
            self._settle_later(claim)  # it may have been taken before the store fell silent
            raise
        refusal = await self._mirror.admit(self._local(claim))
        if needs_hold(claim.limits):
            if refusal is None:
                self._outside.add(claim.hold)
            else:
                self._settle_later(claim)
        return refusal

    async def _ask(self, operation: Coroutine[None, None, T]) -> T:
        """Raises LimitsDown, at once while the store is known to be down."""
        try:
            self._check_up()
            async with self._turns:
                self._check_up()
                return await self._timed(operation)
        finally:
            operation.close()

    def _check_up(self) -> None:
        if self._is_down:
            raise LimitsDown(UNREACHABLE, hint="try again in a moment")

    async def _timed(self, operation: Coroutine[None, None, T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await operation
        except TimeoutError:
            error = LimitsDown(f"the counters of limits gave no answer within {self._timeout_s:g} s", hint="try again in a moment")
            self._fall(error)
            raise error from None
        except LimitsDown as error:
            self._fall(error)
            raise LimitsDown(UNREACHABLE, hint="try again in a moment") from error  # where the store is, is for the log alone

    def _fall(self, error: LimitsDown) -> None:
        if not self._is_down:
            log.warning("limits go by the policy for an outage: %s", error.message)
            self._is_down = True
            self._outages += 1
        self._recover()

    def _recover(self) -> None:
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._until_settled())

    async def _until_settled(self) -> None:
        """Settle what waits; while the store is down try again and again.

        It is back once all is settled that waited at first: under load there is always something that came meanwhile.
        """
        while self._is_down or self._unsettled:
            try:
                await self._settle_first(len(self._unsettled))
                if self._is_down:
                    await self._timed(self._store.settle(NOTHING))
                    self._is_down = False
                    self._back_s = time.monotonic()
                    log.info("the counters of limits are back")
            except LimitsDown:
                await asyncio.sleep(RETRY_S)

    async def _stop_recovery(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)

    async def _settle_first(self, count: int) -> None:
        """Settle so many of what waits. Raises LimitsDown; then what may not be settled waits on."""
        while count > 0 and self._unsettled:
            claims = list(itertools.islice(self._unsettled, min(count, TOGETHER)))
            count -= len(claims)
            results = await asyncio.gather(*map(self._settle_one, claims), return_exceptions=True)
            for claim, result in zip(claims, results, strict=True):
                if isinstance(result, LimitsDown):
                    raise result
                if self._unsettled and self._unsettled[0] is claim:
                    self._unsettled.popleft()

    async def _settle_one(self, claim: Claim) -> None:
        try:
            async with self._turns:
                await self._timed(self._store.settle(claim))
        except LimitsDown:
            raise
        except Exception:  # trying again would not help it, and the others wait behind it
            log.exception("request %s is not settled", claim.hold)

    def _settle_later(self, claim: Claim) -> None:
        if len(self._unsettled) >= MOST_UNSETTLED:
            self._unsettled.popleft()  # its hold expires by itself
        self._unsettled.append(claim)
        self._recover()

    def _check(self, limits: Limits, controls: Sequence[str], error: LimitsDown) -> None:
        """Raises `error` where the key has a limit that refuses."""
        for control in controls:
            if self._policy[control] == "refuse" and getattr(limits, control) is not None:
                raise error

    def _local(self, claim: Claim, *, enforced: bool = True) -> Claim:
        """The claim within those limits alone that this process counts itself."""
        limits = self._reduced.get(claim.limits)
        if limits is None:
            allowed = {control: None for control, policy in self._policy.items() if policy != "local"}
            limits = self._reduced[claim.limits] = msgspec.structs.replace(claim.limits, **allowed)
        return msgspec.structs.replace(claim, limits=limits, enforced=enforced)


def _by_limit(settings: LimitSettings) -> dict[str, WhenDown]:
    return {
        "requests_per_minute": settings.requests_when_down,
        "concurrent_requests": settings.concurrent_when_down,
        "tokens_per_minute": settings.tokens_when_down,
        "budget_day_usd": settings.budget_when_down,
        "budget_month_usd": settings.budget_when_down,
    }
