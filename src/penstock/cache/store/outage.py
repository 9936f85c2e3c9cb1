"""A store that may be down: then nothing is found and nothing is kept, and no request notices.

Every operation has a time to answer in. The first that fails is logged; for `REST_S` after it the store is not asked at all, and then
again by one operation at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from penstock.cache.store.protocol import Entry, Held, Part, Row, Seen, Store, StoreDown
from penstock.core.errors import NotReady

log = logging.getLogger(__name__)

T = TypeVar("T")

REST_S = 1.0
ADMIN_S = 60.0  # for counting and clearing, which look at everything


class ForgivingStore:
    """Passes on to `store`, within `timeout_s`."""

    def __init__(self, store: Store, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._clock = clock
        self._down = False
        self._rest_until = float("-inf")

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        return await self._tried(lambda: self._store.get(keys), {})

    async def put(self, entry: Entry) -> tuple[bytes, ...]:
        return await self._tried(lambda: self._store.put(entry), ())

    async def rows(self, scope: bytes, after: int) -> list[Row]:
        return await self._tried(lambda: self._store.rows(scope, after), [], ADMIN_S)

    async def note(self, key: bytes, seen: Seen) -> None:
        await self._tried(lambda: self._store.note(key, seen), None)

    async def drop(self, part: Part) -> int:
        """Raises NotReady where the store cannot be reached: who invalidates wants to know."""
        return await self._told(lambda: self._store.drop(part))

    async def held(self) -> Held:
        """Raises NotReady."""
        return await self._told(self._store.held)

    async def close(self) -> None:
        await self._store.close()

    async def _tried(self, ask: Callable[[], Awaitable[T]], otherwise: T, timeout_s: float | None = None) -> T:
        now = self._clock()
        if now < self._rest_until:
            return otherwise
        if self._down:
            self._rest_until = now + REST_S  # one asks; the others go on without
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                found = await ask()
        except (StoreDown, TimeoutError) as error:
            self._fell(error)
            return otherwise
        if self._down:
            self._down = False
            self._rest_until = float("-inf")
            log.info("the store of the answer cache is back")
        return found

    async def _told(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(ADMIN_S):
                return await ask()
        except (StoreDown, TimeoutError) as error:
            self._fell(error)
            raise NotReady("the store of the answer cache cannot be reached", hint="the server's log says why") from error

    def _fell(self, error: Exception) -> None:
        self._rest_until = self._clock() + REST_S
        if not self._down:
            why = str(error) or f"no answer within {self._timeout_s:g} s"
            log.warning("the answer cache does without its store: %s", why)
            self._down = True
