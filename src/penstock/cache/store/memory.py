"""Answers in this process's memory. They end with it."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from penstock.cache.store.protocol import MOST_SEEN, Bounds, Entry, Held, Part, Row, Seen


class MemoryStore:
    """Used from one event loop. `clock` is in unix seconds."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.time) -> None:
        self._bounds = bounds
        self._clock = clock
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()  # the longest unused first
        self._scopes: dict[bytes, dict[bytes, int]] = {}  # the numbers of those with vectors, by key
        self._number = 0
        self._bytes = 0

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        found: dict[bytes, Entry] = {}
        now = self._clock()
        for key in keys:
            entry = self._entries.get(key)
            if entry is None:
                continue
            if now >= entry.until:
                self._remove(key)
                continue
            self._entries.move_to_end(key)
            found[key] = entry
        return found

    async def put(self, entry: Entry) -> tuple[bytes, ...]:
        size = entry.size_bytes
        if size > self._bounds.max_bytes:
            return ()
        if entry.key in self._entries:
            self._remove(entry.key)
        self._entries[entry.key] = entry
        self._bytes += size
        if entry.vector:
            self._number += 1
            self._scopes.setdefault(entry.scope, {})[entry.key] = self._number
        return self._make_room()

    async def rows(self, scope: bytes, after: int) -> list[Row]:
        numbers = self._scopes.get(scope, {})
        newest = itertools.takewhile(lambda item: item[1] > after, reversed(numbers.items()))
        return [Row(number, key, self._entries[key].vector) for key, number in newest][::-1]

    async def note(self, key: bytes, seen: Seen) -> None:
        if (entry := self._entries.get(key)) is not None:
            self._bytes -= entry.size_bytes
            self._entries[key] = entry = replace(entry, seen=(*entry.seen, seen)[-MOST_SEEN:])
            self._bytes += entry.size_bytes
            self._make_room()

    async def drop(self, part: Part) -> int:
        gone = [key for key, entry in self._entries.items() if part.holds(entry)]
        for key in gone:
            self._remove(key)
        return len(gone)

    async def held(self) -> Held:
        return Held(entries=len(self._entries), bytes=self._bytes, by_meaning=sum(map(len, self._scopes.values())))

    async def close(self) -> None:
        pass

    def _make_room(self) -> tuple[bytes, ...]:
        gone: list[bytes] = []
        while self._bytes > self._bounds.max_bytes or len(self._entries) > self._bounds.max_entries:
            gone.append(next(iter(self._entries)))
            self._remove(gone[-1])
        return tuple(gone)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        self._bytes -= entry.size_bytes
        if entry.vector and (numbers := self._scopes.get(entry.scope)) is not None:
            numbers.pop(key, None)
            if not numbers:
                del self._scopes[entry.scope]
