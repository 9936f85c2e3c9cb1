"""Stores of answers, entries to put there, and vectors and a judgement simple enough to foresee."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.cache.store import Bounds, Entry, Store
from penstock.cache.store.memory import MemoryStore
from penstock.cache.store.redis import RedisStore
from penstock.cache.store.sqlite import SQLiteStore
from penstock.cache.verdict import Candidate, Verdict

STORES = ("memory", "sqlite", "redis")
ROOMY = Bounds(64 * 2**20, 100_000)
DIMENSIONS = 32


def key(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=32).digest()


def entry(name: str = "a", /, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "key": key(name), "tenant": "alice", "model": "fake", "made_at": 0.0, "until": 1e12, "answer": f"the answer to {name}".encode()
    }  # fmt: skip
    return Entry(**(fields | changes))


@asynccontextmanager
async def open_store(
    kind: str, folder: Path, url: str, clock: Callable[[], float], bounds: Bounds = ROOMY, prefix: str = "test:{t}"
) -> AsyncIterator[Store]:
    """One of STORES. What an earlier one kept in `folder`, or under `prefix` at `url`, is there again."""
    store: Store
    if kind == "memory":
        store = MemoryStore(bounds, clock)
    elif kind == "sqlite":
        store = SQLiteStore(folder / "cache.db", bounds, clock)
    else:
        store = RedisStore(url, bounds, clock, timeout_s=5.0, prefix=prefix)
    try:
        yield store
    finally:
        await store.close()


class WordVectors:
    """A text is the sum of its words' random directions: the more words two share, the nearer they are."""

    name = "words"
    dimensions = DIMENSIONS
    digest = "words"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return self.now(texts)

    def now(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.stack([sum((_direction(word) for word in text.lower().split()), np.zeros(DIMENSIONS)) for text in texts])
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype=np.float32)

    async def close(self) -> None:
        pass


def _direction(word: str) -> NDArray[np.float64]:
    return np.random.default_rng(int.from_bytes(word.encode()[:8], "big")).normal(size=DIMENSIONS)


class Foreseen:
    """Serves the nearest from `serve` on, tries it from `attempt` on. `learned` is what it was told."""

    def __init__(self, serve: float = 0.8, attempt: float = 0.5) -> None:
        self._serve, self._attempt = serve, attempt
        self.learned: list[tuple[str, bool]] = []

    def judge(self, group: str, text: str, vector: NDArray[np.float32], candidates: Sequence[Candidate], u: float) -> Verdict:
        if not candidates:
            return Verdict(action="pass", why="nothing stored is near")
        scores = [float(candidate.vector @ vector) for candidate in candidates]
        place = int(np.argmax(scores))
        score = scores[place]
        if score < self._attempt:
            return Verdict(action="pass", similarity=score, why="too far")
        action = "serve" if score >= self._serve else "try"
        return Verdict(action=action, place=place, trust=score, similarity=score, why=f"cosine {score:.2f}")  # type: ignore[arg-type]

    def learn(self, group: str, trust: float, same: bool) -> None:
        self.learned.append((group, same))
