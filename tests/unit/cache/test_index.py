"""The vectors of scopes: found exactly while they are few, nearly so when they are many, and never what has gone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from cached import key
from numpy.typing import NDArray

from penstock.cache.index import Near, VectorIndex, kept
from penstock.cache.store.protocol import Row

DIMENSIONS = 24
SCOPE, OTHER = b"one", b"other"


def unit(count: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)  # type: ignore[no-any-return]


class Source:
    """The rows of a store, which can be late."""

    def __init__(self) -> None:
        self.rows: dict[bytes, list[Row]] = {}
        self.asked = 0
        self.late = asyncio.Event()
        self.late.set()

    def put(self, scope: bytes, vectors: NDArray[np.float32], start: int = 0) -> None:
        rows = self.rows.setdefault(scope, [])
        rows += [Row(len(rows) + 1 + place, name(scope, start + place), kept(vector)) for place, vector in enumerate(vectors)]

    async def __call__(self, scope: bytes, after: int) -> list[Row]:
        self.asked += 1
        await self.late.wait()
        return [row for row in self.rows.get(scope, []) if row.number > after]


def name(scope: bytes, place: int) -> bytes:
    return key(f"{scope!r} {place}")


def keys(near: list[Near]) -> list[bytes]:
    return [found.key for found in near]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def settled(index: VectorIndex) -> None:
    while any(part.filling for part in index._scopes.values()):
        await asyncio.sleep(0.001)


@pytest.fixture
def source() -> Source:
    return Source()


async def test_the_nearest_come_first_with_their_cosines(source: Source) -> None:
    vectors = unit(200)
    source.put(SCOPE, vectors)
    index = VectorIndex(source, DIMENSIONS, 1000)
    near = await index.nearest(SCOPE, vectors[7], 5)
    scores = vectors @ vectors[7]
    assert keys(near) == [name(SCOPE, int(place)) for place in np.argsort(-scores)[:5]]
    assert [found.similarity for found in near] == pytest.approx(np.sort(scores)[:-6:-1].tolist(), abs=2e-3)
    await index.close()


async def test_one_scope_knows_nothing_of_another(source: Source) -> None:
    vectors = unit(10)
    source.put(SCOPE, vectors[:5])
    source.put(OTHER, vectors[5:])
    index = VectorIndex(source, DIMENSIONS, 1000)
    for scope in (SCOPE, OTHER):
        assert set(keys(await index.nearest(scope, vectors[0], 100))) == {name(scope, place) for place in range(5)}
    assert await index.nearest(b"none", vectors[0], 5) == []
    await index.close()


@pytest.mark.parametrize("flat_most", [8192, 32])
async def test_what_is_put_and_removed_is_followed(source: Source, flat_most: int) -> None:
    """The same with a graph as with an array."""
    vectors = unit(300)
    source.put(SCOPE, vectors[:200])
    index = VectorIndex(source, DIMENSIONS, 1000, flat_most=flat_most)
    await index.nearest(SCOPE, vectors[0], 1)
    await settled(index)
    source.put(SCOPE, vectors[200:], start=200)
    index.follow(SCOPE)
    assert keys(await index.nearest(SCOPE, vectors[250], 1)) == [name(SCOPE, 250)]
    await settled(index)
    gone = [name(SCOPE, place) for place in range(0, 300, 2)]
    index.remove(gone)
    found = {near for place in range(300) for near in keys(await index.nearest(SCOPE, vectors[place], 3))}
    assert not found & set(gone)
    right = [keys(await index.nearest(SCOPE, vectors[place], 1)) == [name(SCOPE, place)] for place in range(1, 300, 2)]
    assert sum(right) >= 0.97 * len(right)
    assert len(index) == 150
    await index.close()


async def test_a_graph_is_filled_while_it_is_searched(source: Source) -> None:
    vectors = unit(400)
    source.put(SCOPE, vectors)
    index = VectorIndex(source, DIMENSIONS, 1000, flat_most=16)
    for place in range(0, 400, 5):
        assert keys(await index.nearest(SCOPE, vectors[place], 1)) == [name(SCOPE, place)]
    await settled(index)
    assert len(index._scopes[SCOPE].flat) == 0
    assert keys(await index.nearest(SCOPE, vectors[9], 1)) == [name(SCOPE, 9)]
    await index.close()


async def test_without_usearch_the_array_grows(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    vectors = unit(300)
    source.put(SCOPE, vectors)
    index = VectorIndex(source, DIMENSIONS, 1000, flat_most=16)
    assert keys(await index.nearest(SCOPE, vectors[5], 1)) == [name(SCOPE, 5)]
    assert index._scopes[SCOPE].graph is None
    await index.close()


async def test_another_process_s_answers_are_seen_within_seconds(source: Source) -> None:
    clock, vectors = Clock(), unit(2)
    source.put(SCOPE, vectors[:1])
    index = VectorIndex(source, DIMENSIONS, 1000, clock=clock)
    assert len(await index.nearest(SCOPE, vectors[1], 5)) == 1
    source.put(SCOPE, vectors[1:], start=1)
    assert len(await index.nearest(SCOPE, vectors[1], 5)) == 1
    clock.now_s = 6.0
    assert len(await index.nearest(SCOPE, vectors[1], 5)) == 2
    await index.close()


async def test_what_is_put_while_the_store_is_read_is_not_missed(source: Source) -> None:
    vectors = unit(2)
    source.put(SCOPE, vectors[:1])
    index = VectorIndex(source, DIMENSIONS, 1000)
    await index.nearest(SCOPE, vectors[0], 1)
    source.late.clear()
    index.follow(SCOPE)
    reading = asyncio.create_task(index.nearest(SCOPE, vectors[1], 1))
    await asyncio.sleep(0)
    source.rows[SCOPE].append(Row(2, name(SCOPE, 1), kept(vectors[1])))
    index.follow(SCOPE)
    source.late.set()
    await reading
    assert keys(await index.nearest(SCOPE, vectors[1], 1)) == [name(SCOPE, 1)]
    await index.close()


async def test_a_store_that_is_slow_keeps_nobody(source: Source) -> None:
    vectors = unit(5)
    source.put(SCOPE, vectors)
    source.late.clear()
    index = VectorIndex(source, DIMENSIONS, 1000)
    async with asyncio.timeout(5):
        assert await index.nearest(SCOPE, vectors[0], 1) == []
    source.late.set()
    await asyncio.sleep(0)
    assert keys(await index.nearest(SCOPE, vectors[0], 1)) == [name(SCOPE, 0)]
    await index.close()


async def test_memory_is_bounded_and_what_was_forgotten_is_read_again(source: Source) -> None:
    vectors = unit(10)
    scopes = [b"%d" % number for number in range(20)]
    for scope in scopes:
        source.put(scope, vectors)
    index = VectorIndex(source, DIMENSIONS, 45)
    for scope in scopes:
        assert len(await index.nearest(scope, vectors[0], 20)) == 10
        assert len(index) <= 45
    for number in range(1000):
        await index.nearest(b"nothing here %d" % number, vectors[0], 1)
    assert len(index._scopes) <= 5
    assert keys(await index.nearest(scopes[0], vectors[3], 1)) == [name(scopes[0], 3)]
    source.put(b"huge", unit(100))
    assert len(await index.nearest(b"huge", vectors[0], 200)) == 45
    await index.close()


async def test_a_lookup_that_waits_for_a_scope_survives_its_being_forgotten() -> None:
    source = Source()
    source.late.clear()
    index = VectorIndex(source, DIMENSIONS, 100)
    waiting = asyncio.create_task(index.nearest(SCOPE, unit(1)[0], 3))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    index.forget()
    assert await waiting == []
    await index.close()
