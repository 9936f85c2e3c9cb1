"""The vectors of each scope, for finding those nearest to a text's.

An index is a hint: what it finds is looked up in the store, which knows what has gone, and its similarity is taken again from the
vector that is stored. It is made of the store's rows when a scope is first asked for, and then follows them.

    new vectors → a flat array (exact, one matrix product) → beyond `flat_most` a graph (usearch, HNSW: Malkov and Yashunin, 2018)

The array empties into the graph in the background, a few vectors at a time, and both are searched meanwhile. Without usearch it
just grows. Small arrays are searched where they are asked for, on the event loop; larger ones, and graphs, in a thread.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penstock.cache.store.protocol import Row

Floats = NDArray[np.float32]
Rows = Callable[[bytes, int], Awaitable[list[Row]]]

FLAT_MOST = 8192  # vectors; a graph pays beyond
HERE_MOST = 2048  # searched on the event loop: 0.1 ms
CHUNK = 8  # vectors that go to the graph at a time: a search waits no longer than for these
LOAD_S = 0.25  # how long lookups wait for their scope to be read; then they find what is there
REFRESH_S = 5.0  # how old a look at the store may be: other processes put there, too


class Near(Struct, frozen=True):
    """A neighbour. `similarity` is the cosine."""

    key: bytes
    similarity: float


class Flat:
    """Vectors in one array. A removed one leaves a row of zeros, which the next one takes."""

    def __init__(self, dimensions: int) -> None:
        self.places: dict[bytes, int] = {}
        self._rows: Floats = np.zeros((1, dimensions), dtype=np.float32)  # [capacity, dimensions]
        self._keys: list[bytes | None] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def of(cls, rows: Sequence[Row], dimensions: int) -> Flat:
        """All of them at once."""
        flat = cls(dimensions)
        keys = [row.key for row in rows]
        flat._rows = _vectors(rows, dimensions)
        flat._keys = [*keys]
        flat.places = {key: place for place, key in enumerate(keys)}
        return flat

    def add(self, key: bytes, vector: Floats) -> None:
        place = self.places.get(key)
        if place is None:
            place = self._free.pop() if self._free else self._grown()
        self._rows[place] = vector
        self._keys[place] = key
        self.places[key] = place

    def remove(self, key: bytes) -> None:
        if (place := self.places.pop(key, None)) is not None:
            self._keys[place] = None
            self._rows[place] = 0.0
            self._free.append(place)

    def some(self, count: int) -> list[tuple[bytes, Floats]]:
        """Copies of the oldest."""
        return [(key, self._rows[place].copy()) for key, place in islice(self.places.items(), count)]

    def nearest(self, vector: Floats, count: int) -> list[Near]:
        """Best first. May run in a thread while the event loop adds and removes: then a row may be a moment out of date."""
        scores = self._rows[: len(self._keys)] @ vector
        count = min(count, len(scores))
        if not count:
            return []
        best = np.argpartition(scores, -count)[-count:]
        found = [Near(key, float(scores[place])) for place in best if (key := self._keys[place]) is not None]
        return sorted(found, key=_best_first)

    def _grown(self) -> int:
        place = len(self._keys)
        if place == len(self._rows):
            rows = np.zeros((2 * place, self._rows.shape[1]), dtype=np.float32)
            rows[:place] = self._rows
            self._rows = rows
        self._keys.append(None)
        return place


class Graph:
    """Vectors in usearch, as float16. Used in the index's one thread alone."""

    def __init__(self, dimensions: int) -> None:
        from usearch.index import Index

        self._index: Any = Index(ndim=dimensions, metric="ip", dtype="f16")
        self._numbers: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._next = 0

    def add(self, vectors: Sequence[tuple[bytes, Floats]]) -> None:
        for key, vector in vectors:
            self.remove([key])
            self._index.add(self._next, vector, threads=1)
            self._numbers[key], self._keys[self._next] = self._next, key
            self._next += 1

    def remove(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            if (number := self._numbers.pop(key, None)) is not None:
                del self._keys[number]
                self._index.remove(number)

    def nearest(self, vector: Floats, count: int) -> list[Near]:
        """Best first; a few may be missed."""
        if not self._numbers:
            return []
        found = self._index.search(vector, count, threads=1)
        pairs = zip(found.keys.tolist(), found.distances.tolist(), strict=True)
        return [Near(self._keys[number], 1.0 - distance) for number, distance in pairs if number in self._keys]


class _Scope:
    """One partition: what is in it, and where."""

    __slots__ = ("behind", "filling", "flat", "graph", "keys", "number", "read_s", "reading")

    def __init__(self, dimensions: int) -> None:
        self.keys: set[bytes] = set()
        self.flat = Flat(dimensions)
        self.graph: Graph | None = None
        self.filling: asyncio.Task[None] | None = None
        self.reading: asyncio.Task[None] | None = None
        self.number = 0  # of the last row read
        self.read_s = 0.0
        self.behind = True  # something was put since

    def search(self, vector: Floats, count: int) -> list[Near]:
        near = self.flat.nearest(vector, count)
        if self.graph is not None:
            best = {found.key: found for found in (*self.graph.nearest(vector, count), *near)}
            near = sorted(best.values(), key=_best_first)[:count]
        return near


class VectorIndex:
    """Follows the rows of a store. Holds at most `max_entries` vectors: the scopes unused longest are forgotten, and read again.

    `clock` is in seconds, monotonic. Used from one event loop.
    """

    def __init__(
        self, rows: Rows, dimensions: int, max_entries: int, *, flat_most: int = FLAT_MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rows = rows
        self._dimensions = dimensions
        self._max_entries = max_entries
        self._clock = clock
        self._flat_most = flat_most if importlib.util.find_spec("usearch") else max_entries
        self._scopes: OrderedDict[bytes, _Scope] = OrderedDict()  # the one unused longest first; none is empty for long
        self._scope_of: dict[bytes, bytes] = {}  # by key
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vector-index")

    def __len__(self) -> int:
        """Vectors in memory."""
        return len(self._scope_of)

    async def nearest(self, scope: bytes, vector: Floats, count: int) -> list[Near]:
        """The vectors of that scope nearest to `vector`, best first. Raises what reading the store raises."""
        part = self._scopes.get(scope)
        if part is None:
            part = self._scopes[scope] = _Scope(self._dimensions)
        self._scopes.move_to_end(scope)
        if part.reading is None and (part.behind or self._clock() - part.read_s >= REFRESH_S):
            part.read_s, part.behind = self._clock(), False
            part.reading = asyncio.create_task(self._read(scope, part))
            part.reading.add_done_callback(_heard)
        if (reading := part.reading) is not None:
            await asyncio.wait([reading], timeout=max(0.0, LOAD_S - (self._clock() - part.read_s)))
            if reading.done() and not reading.cancelled():  # it is where the scope was forgotten meanwhile
                reading.result()
        if not part.keys:
            return []
        if part.graph is None and len(part.flat) <= HERE_MOST:
            return part.search(vector, count)
        return await asyncio.get_running_loop().run_in_executor(self._thread, part.search, vector, count)

    def follow(self, scope: bytes) -> None:
        """Something was put there: the next lookup sees it."""
        if (part := self._scopes.get(scope)) is not None:
            part.behind = True

    def remove(self, keys: Iterable[bytes]) -> None:
        """These are gone from the store."""
        for key in keys:
            part = self._scopes.get(self._scope_of.pop(key, b""))
            if part is not None:
                part.keys.discard(key)
                part.flat.remove(key)
                if part.graph is not None:
                    self._thread.submit(part.graph.remove, [key])

    def forget(self) -> None:
        """Read every scope anew when it is asked for."""
        for scope in list(self._scopes):
            self._forget(scope)

    async def close(self) -> None:
        tasks = [task for part in self._scopes.values() for task in (part.reading, part.filling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def _read(self, scope: bytes, part: _Scope) -> None:
        """Take in what was put since the last look."""
        try:
            rows = (await self._rows(scope, part.number))[-self._max_entries :]
            if len(rows) > HERE_MOST and not part.keys:
                part.flat = await asyncio.to_thread(Flat.of, rows, self._dimensions)
            else:
                for row, vector in zip(rows, _vectors(rows, self._dimensions), strict=True):
                    part.flat.add(row.key, vector)
            if self._scopes.get(scope) is not part:  # forgotten meanwhile
                return
            part.keys.update(row.key for row in rows)
            self._scope_of.update((row.key, scope) for row in rows)
            part.number = max([part.number, *(row.number for row in rows)])
            self._fill_soon(part)
            self._bound(scope)
        finally:
            part.reading = None
            if not part.keys and self._scopes.get(scope) is part:
                del self._scopes[scope]

    def _fill_soon(self, part: _Scope) -> None:
        if part.filling is None and len(part.flat) > (self._flat_most if part.graph is None else min(HERE_MOST, self._flat_most)):
            part.filling = asyncio.create_task(self._fill(part))

    async def _fill(self, part: _Scope) -> None:
        """Move the array's vectors to the graph."""
        loop = asyncio.get_running_loop()
        try:
            if part.graph is None:
                part.graph = await loop.run_in_executor(self._thread, Graph, self._dimensions)
            while moved := part.flat.some(CHUNK):
                await loop.run_in_executor(self._thread, part.graph.add, moved)
                for key, _ in moved:
                    part.flat.remove(key)
                gone = [key for key, _ in moved if key not in part.keys]  # removed meanwhile
                self._thread.submit(part.graph.remove, gone)
            part.flat = Flat(self._dimensions)
        finally:
            part.filling = None

    def _bound(self, newest: bytes) -> None:
        while len(self) > self._max_entries:
            scope = next(iter(self._scopes))
            self._forget(scope)
            if scope == newest:
                return

    def _forget(self, scope: bytes) -> None:
        part = self._scopes.pop(scope)
        for key in part.keys:
            self._scope_of.pop(key, None)
        for task in (part.reading, part.filling):
            if task is not None:
                task.cancel()


def kept(vector: Floats) -> bytes:
    """A vector as it is stored."""
    return vector.astype(np.float16).tobytes()


def unpacked(vector: bytes) -> Floats:
    """A stored vector. [dimensions]"""
    return np.frombuffer(vector, dtype=np.float16).astype(np.float32)


def _vectors(rows: Sequence[Row], dimensions: int) -> Floats:
    """[len(rows), dimensions]"""
    return np.frombuffer(b"".join(row.vector for row in rows), dtype=np.float16).astype(np.float32).reshape(len(rows), dimensions)


def _heard(task: asyncio.Task[None]) -> None:
    """Whoever waited for it was told; that nobody did is no fault."""
    if not task.cancelled():
        task.exception()


def _best_first(near: Near) -> float:
    return -near.similarity
