"""Counters of one process, gone with it."""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.meter.counters.account import Account, Claim, Refusal


class MemoryCounters:
    """Exact for one process. Nothing here waits, so each operation is one step of the event loop. A hold lasts `hold_s` at most."""

    def __init__(self, hold_s: float, *, clock: Callable[[], float] = time.time) -> None:
        self._hold_s = hold_s
        self._clock = clock  # unix seconds
        self._accounts: dict[str, Account] = {}

    async def admit(self, claim: Claim) -> Refusal | None:
        return self._account(claim).admit(claim, self._clock(), self._hold_s)

    async def reserve(self, claim: Claim) -> Refusal | None:
        return self._account(claim).reserve(claim, self._clock(), self._hold_s)

    async def settle(self, claim: Claim) -> None:
        self._account(claim).settle(claim, self._clock())

    async def close(self) -> None:
        return None

    def _account(self, claim: Claim) -> Account:
        account = self._accounts.get(claim.account)
        if account is None:
            account = self._accounts[claim.account] = Account()
        return account
