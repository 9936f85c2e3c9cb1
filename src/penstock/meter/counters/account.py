"""How one key's use is counted: the arithmetic, without a store. Redis has the same in Lua.

- Per minute: one-second buckets; what is used in any 60 seconds stays within the limit.
- Holds: a request under way has one, with the tokens and the money reserved for it. used + held ≤ limit, always.
- Money: whole nano-dollars, per UTC day and UTC month. A request counts on the day on which it was reserved.

A hold ends when it is settled. One that nobody settles (its gateway died) stops counting when it expires, and is remembered for
`REMEMBERED_S` more, so that what that gateway had written down can still be settled, once.
"""

from __future__ import annotations

import time
from decimal import ROUND_CEILING, Decimal
from typing import Literal

from msgspec import Struct, field

from penstock.core.types import Limits

WINDOW_S = 60
BUCKETS = WINDOW_S + 1  # the current second is not over: a window of whole seconds needs one more to cover 60 s
DAY_S = 86_400
NANO = 9  # decimal places of a nano-dollar
REMEMBERED_S = 86_400.0

Control = Literal["requests", "concurrent", "tokens", "day", "month", "unseeded"]


class Seed(Struct, frozen=True):
    """Nano-dollars that the ledger knows to be spent this UTC day and month."""

    day: int
    month: int


class Claim(Struct, frozen=True, kw_only=True):
    """What is asked of the counters: on whose account, for which hold, within which limits, how much."""

    account: str
    hold: str
    limits: Limits
    tokens: int = 0
    nano: int = 0
    seed: Seed | None = None
    unheld: bool = False  # settle also where the store knows no such hold
    enforced: bool = True  # False: count it, whatever the limits say


class Refusal(Struct, frozen=True, kw_only=True):
    """Which limit is in the way and what counts against it now: tokens, requests or nano-dollars, used and held together."""

    control: Control
    counted: int = 0
    retry_after_s: float | None = None  # None: not by waiting a moment
    warned: bool = False  # not refused after all


class Window(Struct):
    """What was used in each of the last `BUCKETS` seconds, and in all of them."""

    second: int = 0
    total: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def at(self, now: float) -> int:
        """What counts at `now` (unix seconds). A clock that goes back stands still."""
        second = int(now)
        if second > self.second:
            if second - self.second >= BUCKETS:
                self.buckets = [0] * BUCKETS
                self.total = 0
            else:
                for passed in range(self.second + 1, second + 1):
                    self.total -= self.buckets[passed % BUCKETS]
                    self.buckets[passed % BUCKETS] = 0
            self.second = second
        return self.total

    def add(self, count: int) -> None:
        """Use so much in the second of the last `at`."""
        self.buckets[self.second % BUCKETS] += count
        self.total += count

    def wait_s(self, excess: int, now: float) -> float | None:
        """Seconds until so much has left the window; None where it never had so much."""
        for second in range(self.second - WINDOW_S, self.second + 1):
            excess -= self.buckets[second % BUCKETS]
            if excess <= 0:
                return max(second + BUCKETS - now, 0.001)
        return None


class Held(Struct):
    """What one request under way has reserved."""

    expires_at: float
    day: int  # UTC days since 1970
    tokens: int = 0
    nano: int = 0


class Account(Struct):
    """One key's counters. `held` is in the order of expiry; `late` are the expired holds that are still remembered."""

    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    day: int = 0
    month: int = 0  # UTC months since year 0
    day_nano: int = 0
    month_nano: int = 0
    is_seeded: bool = False
    held_tokens: int = 0
    held_nano: int = 0
    held: dict[str, Held] = {}
    late: dict[str, Held] = {}
    charged: dict[str, float] = {}  # settled with `unheld`: until when that is remembered

    def admit(self, claim: Claim, now: float, hold_s: float) -> Refusal | None:
        """Count a request and take a place that is free again after `hold_s` at the latest."""
        self._turn(now)
        limits = claim.limits
        per_minute, places = limits.requests_per_minute, limits.concurrent_requests
        if per_minute is not None:
            counted = self.requests.at(now)
            if counted >= per_minute and claim.enforced:
                return Refusal(control="requests", counted=counted, retry_after_s=self.requests.wait_s(counted + 1 - per_minute, now))
        if places is not None and len(self.held) >= places and claim.enforced:
            return Refusal(control="concurrent", counted=len(self.held), retry_after_s=1.0)
        if per_minute is not None:
            self.requests.add(1)
        if needs_hold(limits):
            self._hold(claim.hold, now, hold_s)
        return None

    def reserve(self, claim: Claim, now: float, hold_s: float) -> Refusal | None:
        """Reserve tokens and money."""
        self._turn(now)
        refusal = self._refusal(claim, now) if claim.enforced else None
        if refusal is not None and not refusal.warned:
            return refusal
        held = self.held.get(claim.hold) or self._hold(claim.hold, now, hold_s)
        self.held_tokens += claim.tokens - held.tokens
        self.held_nano += claim.nano - held.nano
        held.tokens, held.nano, held.day = claim.tokens, claim.nano, self.day
        return refusal

    def settle(self, claim: Claim, now: float) -> bool:
        """Count what was used. False where there was nothing to settle."""
        self._turn(now)
        held = self._release(claim.hold)
        if claim.unheld:  # it may come again, also where there was a hold
            if claim.hold in self.charged:
                return False
            self.charged[claim.hold] = now + REMEMBERED_S
        elif held is None:
            return False
        if claim.tokens:
            self.tokens.at(now)
            self.tokens.add(claim.tokens)
        if held is None or held.day == self.day:
            self.day_nano += claim.nano
            self.month_nano += claim.nano
        elif month_of(held.day) == self.month:
            self.month_nano += claim.nano
        return True

    def _refusal(self, claim: Claim, now: float) -> Refusal | None:
        if claim.limits.has_budget:
            if claim.seed is not None:
                self._seed(claim.seed)
            if not self.is_seeded:
                return Refusal(control="unseeded")
        return self._over_tokens(claim, now) or self._over_budget(claim)

    def _seed(self, seed: Seed) -> None:
        """What the ledger has and the counters have not was lost."""
        self.day_nano = max(self.day_nano, seed.day)
        self.month_nano = max(self.month_nano, seed.month)
        self.is_seeded = True

    def _over_tokens(self, claim: Claim, now: float) -> Refusal | None:
        limit = claim.limits.tokens_per_minute
        if limit is None:
            return None
        used = self.tokens.at(now)
        counted = used + self.held_tokens
        excess = counted + claim.tokens - limit
        if excess <= 0:
            return None
        fits = claim.tokens <= limit
        wait_s = (self.tokens.wait_s(excess, now) or 1.0) if fits else None
        return Refusal(control="tokens", counted=counted, retry_after_s=wait_s)

    def _over_budget(self, claim: Claim) -> Refusal | None:
        warned = claim.limits.budget_action == "warn"
        day, month = claim.limits.budget_day_usd, claim.limits.budget_month_usd
        if day is not None and self.day_nano + self.held_nano + claim.nano > int(day.scaleb(NANO)):
            return Refusal(control="day", counted=self.day_nano + self.held_nano, warned=warned)
        if month is not None and self.month_nano + self.held_nano + claim.nano > int(month.scaleb(NANO)):
            return Refusal(control="month", counted=self.month_nano + self.held_nano, warned=warned)
        return None

    def _hold(self, id: str, now: float, hold_s: float) -> Held:
        self._release(id)
        self.held[id] = held = Held(now + hold_s, self.day)
        return held

    def _release(self, id: str) -> Held | None:
        held = self.held.pop(id, None)
        if held is None:
            return self.late.pop(id, None)
        self.held_tokens -= held.tokens
        self.held_nano -= held.nano
        return held

    def _turn(self, now: float) -> None:
        """Let time pass: a new day, a new month, holds that have expired."""
        day = int(now) // DAY_S
        if day > self.day:
            self.day, self.day_nano = day, 0
            if (month := month_of(day)) > self.month:
                self.month, self.month_nano = month, 0
        for id in _past(self.held, now):
            held = self.held[id]
            self._release(id)
            self.late[id] = held
        for id in _past(self.late, now - REMEMBERED_S):
            del self.late[id]
        if self.charged:
            self.charged = {id: until for id, until in self.charged.items() if until > now}


def needs_hold(limits: Limits) -> bool:
    """Whether there is something to settle at the end."""
    return limits.concurrent_requests is not None or limits.tokens_per_minute is not None or limits.has_budget


def nano_usd(cost_usd: Decimal) -> int:
    """Whole nano-dollars, rounded up: nothing that costs anything counts as nothing."""
    return int(cost_usd.scaleb(NANO).to_integral_value(ROUND_CEILING))


def month_of(day: int) -> int:
    """The UTC month of a day since 1970, in months since year 0."""
    when = time.gmtime(day * DAY_S)
    return when.tm_year * 12 + when.tm_mon - 1


def month_start(now: float) -> float:
    """When the UTC month of a unix time began, as a unix time."""
    when = time.gmtime(now)
    return now // DAY_S * DAY_S - (when.tm_mday - 1) * DAY_S


def _past(holds: dict[str, Held], now: float) -> list[str]:
    """Those that have expired: the first ones."""
    past = []
    for id, held in holds.items():
        if held.expires_at > now:
            break
        past.append(id)
    return past
