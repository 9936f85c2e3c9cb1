"""How long the semantic cache takes to find the nearest stored questions, besides the embedding.

    python benchmarks/cache_lookup.py                                 100,000 entries in one scope, then over 10,000 scopes
    python benchmarks/cache_lookup.py --entries 20000 --scopes 1 500

Vectors are random, in clusters of twenty, 384 dimensions; a lookup asks for the five nearest to a stored vector with a little noise, one
after the other on the event loop, as the cache does. `array` is one numpy matrix product over the same vectors, in the same run: what the
graph is there to beat. `built` is the time from the first lookup until the graph holds every vector; lookups go on meanwhile, and `while
built` is what they take then. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.cache.index import VectorIndex, kept
from penstock.cache.store.protocol import Row

Floats = NDArray[np.float32]

DIMENSIONS, NEAREST, CLUSTER = 384, 5, 20
SPREAD, NOISE = 0.7, 0.02  # of a cluster, and of a lookup, for each dimension of unit variance


def made(count: int, seed: int) -> Floats:
    """[count, DIMENSIONS], of length one."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, count // CLUSTER), DIMENSIONS)).astype(np.float32)
    return unit(centres[rng.integers(0, len(centres), count)] + SPREAD * rng.normal(size=(count, DIMENSIONS)).astype(np.float32))


def unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


class Stored:
    """Rows as a store gives them."""

    def __init__(self, vectors: Floats, scopes: int) -> None:
        self.scopes: dict[bytes, list[Row]] = {b"%d" % scope: [] for scope in range(scopes)}
        for place, vector in enumerate(vectors):
            self.scopes[b"%d" % (place % scopes)].append(Row(place + 1, b"%032d" % place, kept(vector)))

    async def __call__(self, scope: bytes, after: int) -> list[Row]:
        rows = self.scopes[scope]
        return [row for row in rows if row.number > after] if rows[-1].number > after else []


async def lookups(index: VectorIndex, vectors: Floats, scopes: int, count: int) -> tuple[list[float], float]:
    """Seconds of each, and the share that found the vector that they are noise about."""
    rng = np.random.default_rng(1)
    took_s, right = [], 0
    for place in rng.integers(0, len(vectors), count):
        asked = unit(vectors[place] + NOISE * rng.normal(size=DIMENSIONS).astype(np.float32) / np.sqrt(DIMENSIONS))
        started_s = time.perf_counter()
        near = await index.nearest(b"%d" % (place % scopes), asked, NEAREST)
        took_s.append(time.perf_counter() - started_s)
        right += bool(near) and near[0].key == b"%032d" % place
    return took_s, right / count


async def measured(entries: int, scopes: int, count: int) -> dict[str, float]:
    vectors = made(entries, seed=0)
    index = VectorIndex(Stored(vectors, scopes), DIMENSIONS, entries)
    started_s = time.perf_counter()
    while len(index) < entries:
        for scope in range(scopes):
            await index.nearest(b"%d" % scope, vectors[0], NEAREST)
    during: list[float] = []
    while any(part.filling for part in index._scopes.values()):
        during += (await lookups(index, vectors, scopes, 1))[0]
        await asyncio.sleep(0.2)
    built_s = time.perf_counter() - started_s
    took_s, right = await lookups(index, vectors, scopes, count)
    flat = [timed(vectors[place::scopes], vectors[place]) for place in range(min(100, scopes * 20))]
    await index.close()
    ms = 1000.0
    return {
        "entries": entries,
        "scopes": scopes,
        "p50_ms": ms * float(np.median(took_s)),
        "p99_ms": ms * float(np.quantile(took_s, 0.99)),
        "found": right,
        "array_p50_ms": ms * float(np.median(flat)),
        "built_s": built_s,
        "while_built_p50_ms": ms * float(np.median(during)) if during else 0.0,
    }


def timed(vectors: Floats, asked: Floats) -> float:
    vectors = np.ascontiguousarray(vectors)
    started_s = time.perf_counter()
    np.argpartition(vectors @ asked, -min(NEAREST, len(vectors)))
    return time.perf_counter() - started_s


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--scopes", type=int, nargs="+", default=[1, 10_000])
    parser.add_argument("--lookups", type=int, default=2_000)
    given = parser.parse_args(arguments)
    rows = [asyncio.run(measured(given.entries, scopes, given.lookups)) for scopes in given.scopes]
    print(f"{'entries':>9} {'scopes':>7} {'p50':>8} {'p99':>8} {'found':>7} {'array p50':>10} {'built':>8} {'while built p50':>16}")
    for row in rows:
        print(
            f"{row['entries']:9,} {row['scopes']:7,} {row['p50_ms']:5.2f} ms {row['p99_ms']:5.2f} ms {row['found']:7.3f} "
            f"{row['array_p50_ms']:7.2f} ms {row['built_s']:6.0f} s {row['while_built_p50_ms']:13.2f} ms"
        )
    print(json.dumps({"benchmark": "cache_lookup", "rows": rows}))


if __name__ == "__main__":
    main()
