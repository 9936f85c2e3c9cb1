"""The semantic tier: answers to questions of the same scope that mean the same.

    text → vector (off the event loop) → the scope's nearest → their entries, from the store → `verdict` → serve, try or pass

What is tried is answered by the model all the same; its answer is compared with the stored one afterwards, and the outcome is noted
with the entry and learned from. Anything that fails on the way is a miss.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from msgspec import Struct

from penstock.cache.agree import same_answer
from penstock.cache.answer import Answer, read
from penstock.cache.index import Floats, VectorIndex, kept, unpacked
from penstock.cache.scope import scope_of
from penstock.cache.store.protocol import Entry, Seen, Store
from penstock.cache.verdict import Candidate, Verdict, Verifier
from penstock.core.types import Request
from penstock.embed import TextVectors

log = logging.getLogger(__name__)

NEAREST = 5  # candidates of a lookup
EMBED_S = 0.5  # vectors that take longer are done without


class Look(Struct, frozen=True, kw_only=True):
    """What a lookup came to. `vector` b"": there is none."""

    verdict: Verdict
    scope: bytes = b""
    vector: bytes = b""
    entry: Entry | None = None  # the candidate that is served or tried

    @property
    def why(self) -> str:
        """In words that quote no question: the ledger keeps them."""
        if self.entry is None:
            return self.verdict.why
        return f"{'means' if self.verdict.action == 'serve' else 'may mean'} the same as a stored question: {self.verdict.why}"


class SemanticTier:
    """Looks up and learns. `chance` is uniform in [0, 1). It owns `index`; the vectors and the store are others'."""

    def __init__(
        self,
        store: Store,
        index: VectorIndex,
        vectors: TextVectors,
        verifier: Callable[[], Verifier],
        *,
        policy: str = "",
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._index = index
        self._vectors = vectors
        self._open_verifier = verifier
        self._verifier: Verifier | None = None
        self._opening = asyncio.Lock()
        self._policy = policy
        self._chance = chance
        self._failed = False

    async def look(self, request: Request, text: str) -> Look:
        """What is stored for questions that mean the same as `text`, the last that the user of `request` says."""
        try:
            async with asyncio.timeout(EMBED_S):
                verifier = await self._opened()
                vector = (await self._vectors.of([text]))[0]
            scope = scope_of(request, self._policy, self._vectors.digest)
            entries = await self._near(scope, vector)
            candidates = [Candidate(entry.text, unpacked(entry.vector), entry.seen) for entry in entries]
            verdict = verifier.judge(request.tenant, text, vector, candidates, self._chance())
        except TimeoutError:
            return Look(verdict=Verdict(action="pass", why=f"no vector within {EMBED_S:g} s"))
        except Exception as error:  # noqa: BLE001 (said, once; an answer does not depend on it)
            self._say_failed(error)
            return Look(verdict=Verdict(action="pass", why="the lookup failed; the server's log says why"))
        entry = None if verdict.place is None or verdict.action == "pass" else entries[verdict.place]
        return Look(verdict=verdict, scope=scope, vector=kept(vector), entry=entry)

    async def compare(self, request: Request, look: Look, answer: Answer) -> bool:
        """Whether the candidate that was tried says what the model now said; noted and learned. Raises what the vectors raise."""
        if look.entry is None:
            return False
        texts = answer.text, read(look.entry.answer).text
        vectors = await self._vectors.of(texts)
        same = await asyncio.to_thread(same_answer, *texts, vectors)
        (await self._opened()).learn(request.tenant, look.verdict.trust, same)
        await self._store.note(look.entry.key, Seen(look.verdict.trust, same))
        return same

    async def placed(self, request: Request, text: str) -> tuple[bytes, bytes]:
        """The scope and vector under which an answer to `text` is found by meaning, for one that was not looked up; b"" where it is not."""
        try:
            await self._opened()
            vector = (await self._vectors.of([text]))[0]
        except Exception as error:  # noqa: BLE001 (as above)
            self._say_failed(error)
            return b"", b""
        return scope_of(request, self._policy, self._vectors.digest), kept(vector)

    def stored(self, entry: Entry, gone: tuple[bytes, ...]) -> None:
        """An entry was put, and others had to go."""
        if entry.vector:
            self._index.follow(entry.scope)
        self._index.remove(gone)

    def forget(self) -> None:
        """Much was dropped from the store."""
        self._index.forget()

    async def close(self) -> None:
        await self._index.close()

    async def _near(self, scope: bytes, vector: Floats) -> list[Entry]:
        """The nearest that the store still has, each with a vector of that very scope."""
        near = await self._index.nearest(scope, vector, NEAREST)
        keys = [found.key for found in near]
        entries = await self._store.get(keys) if keys else {}
        whole = {key: entry for key, entry in entries.items() if entry.scope == scope and len(entry.vector) == 2 * len(vector)}
        self._index.remove(key for key in keys if key not in whole)
        return list(whole.values())

    async def _opened(self) -> Verifier:
        """Both read files the first time."""
        async with self._opening:
            if self._verifier is None:
                await asyncio.to_thread(getattr, self._vectors, "digest")
                self._verifier = await asyncio.to_thread(self._open_verifier)
            return self._verifier

    def _say_failed(self, error: Exception) -> None:
        if not self._failed:
            log.error("the semantic cache does not answer", exc_info=error)
            self._failed = True
