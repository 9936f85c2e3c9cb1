"""The answer cache: the very same request first, then one that means the same.

    find   exact tier ── hit ─► replay                  keep   gathers the answer as it streams
             │ miss, one flight for all who ask it      done   whole: shared with the flight, compared with what was
           semantic tier ── serve ─► replay                    tried, stored; else the flight's next leads
             │ try, pass
           the model answers

What may be found at all: answers that chance does not change, or whose request says that it wants the cache; by meaning, what
`storable` lets. A shadow tier decides, says what it would have done, stores and learns; the model answers. Nothing here is on the
way of an answer but the lookup: storing in another process, comparing and learning happen after it, in the background.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping

import msgspec
from msgspec import Struct

from penstock.cache.answer import Answer, answer_of, is_whole, read, written
from penstock.cache.flight import Flight, Flights
from penstock.cache.protocol import Found
from penstock.cache.scope import key_of, last_user_text, repeats
from penstock.cache.semantic import Look, SemanticTier
from penstock.cache.storable import why_unfit, why_unstorable
from penstock.cache.store.memory import MemoryStore
from penstock.cache.store.protocol import Entry, Held, Part, Store
from penstock.core.config import CacheSettings
from penstock.core.types import Delta, Event, Finish, Judge, Judgement, Request, Vectors
from penstock.trace import Tab

log = logging.getLogger(__name__)

MOST_AFTERWARDS = 256  # answers being stored or compared; one more is not stored


class _Plan(Struct, kw_only=True):
    """What is to be done for one request, and what came of it."""

    request: Request
    key: bytes
    text: str | None  # compared by meaning; None: not this request
    is_exact: bool  # the exact tier may give its answer again
    reads: bool
    writes: bool
    epoch: int
    flight: Flight | None = None
    look: Look | None = None
    answer: Answer | None = None
    fits: bool = False  # the answer may be found by meaning


class AnswerCache:
    """Implements `protocol.Cache` over a store. It owns all that it is given. `clock` is in unix seconds. Used from one event loop."""

    def __init__(
        self, settings: CacheSettings, store: Store, semantic: SemanticTier | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._store = store
        self._semantic = semantic
        self._clock = clock
        self._flights = Flights()
        self._epoch = 0  # of invalidations
        self._afterwards: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()

    async def find(self, request: Request, judge: Judge) -> Found:
        plan = self._plan(request)
        if isinstance(plan, str):
            return self._bypass(plan, judge)
        if not plan.reads:
            return Found(state="bypass", key=plan.key, saw=plan)
        if plan.is_exact and self._settings.exact == "on" and (answer := await self._join(plan)) is not None:
            self._say(judge, "exact", "hit", "the same request was being answered just now")
            return answer.replay()
        try:
            answer = await self._found(plan, judge)
        except BaseException:
            if plan.flight is not None:
                self._flights.abandon(plan.flight)
            raise
        if answer is None:
            return Found(state="miss", key=plan.key, saw=plan)
        if plan.flight is not None:
            self._flights.share(plan.flight, answer)
            self._flights.land(plan.flight)
        return answer.replay()

    def keep(self, found: Found, events: AsyncGenerator[Event, None], tab: Callable[[], Tab]) -> AsyncGenerator[Event, None]:
        return self._gathered(found.saw, events, tab) if isinstance(found.saw, _Plan) else events

    async def done(self, found: Found, *, good: bool) -> None:
        plan = found.saw
        if not isinstance(plan, _Plan):
            return
        answer = plan.answer if good else None
        if plan.flight is not None and answer is None:
            (self._flights.land if good else self._flights.abandon)(plan.flight)
        elif plan.flight is not None and answer is not None:
            self._flights.share(plan.flight, answer)
        if answer is None:
            return
        storing = self._stored(plan, answer)
        if isinstance(self._store, MemoryStore) and plan.look is not None and plan.look.entry is None or not self._looks(plan):
            await storing  # nothing of it waits
        else:
            self._later(storing)

    async def held(self) -> tuple[Held, Mapping[str, int]]:
        """What is stored, and what this process has decided since it began. Raises NotReady where the store is down."""
        return await self._store.held(), dict(self._counts)

    async def clear(self, part: Part) -> int:
        """Forget these answers, also those that are being made now. Returns how many there were. Raises NotReady."""
        self._epoch += 1
        self._flights.outdate()
        count = await self._store.drop(part)
        if self._semantic is not None:
            self._semantic.forget()
        return count

    async def close(self) -> None:
        if self._afterwards:
            await asyncio.wait(self._afterwards, timeout=1.0)
        for task in self._afterwards:
            task.cancel()
        await asyncio.gather(*self._afterwards, return_exceptions=True)
        if self._semantic is not None:
            await self._semantic.close()
        await self._store.close()
