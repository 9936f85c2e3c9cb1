"""Counters in a SQLite file: they outlive the process, and several processes of one machine share them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from penstock.core.errors import DatabaseDown, LimitsDown
from penstock.meter.counters.account import Account, Claim, Refusal
from penstock.meter.database import Database

T = TypeVar("T")

SCHEMA = "CREATE TABLE IF NOT EXISTS counters (account TEXT PRIMARY KEY, state TEXT NOT NULL)"
RELAXED = "PRAGMA synchronous = NORMAL"  # a killed process loses nothing; a power cut may lose the last moments


class SQLiteCounters:
    """One row for each account, read and written in one transaction. It owns `database`, a connection of its own.

    Operations run in the order in which they were asked for: one whose client has left goes on in its thread, and settling it must
    not come before it.
    """

    def __init__(self, database: Database, hold_s: float, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._hold_s = hold_s
        self._clock = clock
        self._ready = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="counters")

    async def admit(self, claim: Claim) -> Refusal | None:
        return await self._run(claim, lambda account: account.admit(claim, self._clock(), self._hold_s))

    async def reserve(self, claim: Claim) -> Refusal | None:
        return await self._run(claim, lambda account: account.reserve(claim, self._clock(), self._hold_s))

    async def settle(self, claim: Claim) -> None:
        await self._run(claim, lambda account: account.settle(claim, self._clock()))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)  # who still settles opens it again

    async def _run(self, claim: Claim, change: Callable[[Account], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._step, claim, change)

    def _step(self, claim: Claim, change: Callable[[Account], T]) -> T:
        try:
            if not self._ready:
                self._database.create(SCHEMA)
                self._database.query(RELAXED)
                self._ready = True
            with self._database.transaction():
                rows = self._database.query("SELECT state FROM counters WHERE account = ?", (claim.account,))
                account = msgspec.json.decode(rows[0][0], type=Account) if rows else Account()
                result = change(account)
                state = msgspec.json.encode(account).decode()
                self._database.execute("INSERT OR REPLACE INTO counters (account, state) VALUES (?, ?)", (claim.account, state))
                return result
        except DatabaseDown as error:
            raise LimitsDown(f"the counters cannot be reached: {error.message}") from error
