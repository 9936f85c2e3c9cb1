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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from penstock.cache.answer import Answer, answer_of, is_whole, read, written
from penstock.cache.flight import Flight, Flights
from penstock.cache.protocol import Found
from penstock.cache.scope import key_of, last_user_text, repeats
from penstock.cache.storable import why_unfit, why_unstorable
from penstock.cache.store.memory import MemoryStore
from penstock.cache.store.protocol import Bounds, Entry, Held, Part, Store
from penstock.core.config import CacheSettings
from penstock.core.types import Delta, Event, Finish, Judge, Judgement, Request, Vectors
from penstock.trace import Tab

if TYPE_CHECKING:  # it loads vectors and word lists, for nothing where the tier is off
    from penstock.cache.semantic import Look, SemanticTier

log = logging.getLogger(__name__)

SAME, SAME_NOW = "the same request was answered before", "the same request was being answered just now"
ALIKE = "a request that means the same was answered before"
MOST_AFTERWARDS = 256  # answers being stored or compared, of `max_bytes` in all; one more is not stored


@dataclass(kw_only=True)
class _Plan:
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
    weight: int = 0  # of the answer, bytes
    fits: bool = False  # the answer may be found by meaning


class AnswerCache:
    """Implements `protocol.Cache` over a store. It owns all that it is given. `clock` is in unix seconds. Used from one event loop."""

    def __init__(
        self,
        settings: CacheSettings,
        store: Store | None = None,
        semantic: SemanticTier | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store or MemoryStore(Bounds(settings.max_bytes, settings.max_entries), clock)
        self._semantic = semantic
        self._clock = clock
        self._flights = Flights()
        self._epoch = 0  # of invalidations
        self._afterwards: set[asyncio.Task[None]] = set()
        self._afterwards_bytes = 0
        self._counts: Counter[str] = Counter()

    async def find(self, request: Request, judge: Judge) -> Found:
        plan = self._plan(request)
        if isinstance(plan, str) or not plan.reads:
            why = plan if isinstance(plan, str) else "the request wants an answer of its own"
            self._say(judge, "exact" if self._settings.exact != "off" else "semantic", "bypass", why)
            return Found(state="bypass", saw=plan)
        if plan.is_exact and self._settings.exact == "on" and (answer := await self._join(plan)) is not None:
            self._say(judge, "exact", "hit", SAME_NOW)
            return answer.replay(SAME_NOW)
        try:
            answer = await self._found(plan, judge)
        except BaseException:
            if plan.flight is not None:
                self._flights.abandon(plan.flight)
            raise
        if answer is None:
            return Found(state="miss", saw=plan)
        if plan.flight is not None:
            self._flights.share(plan.flight, answer)
            self._flights.land(plan.flight)
        return answer.replay(SAME if plan.look is None else ALIKE)

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
        is_known = not plan.fits or (plan.look is not None and plan.look.entry is None and plan.look.vector)
        if is_known and isinstance(self._store, MemoryStore):
            await storing  # nothing in it waits
        else:
            self._store_afterwards(storing, plan)

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

    def _plan(self, request: Request) -> _Plan | str:
        """What is to be done for a request, or why nothing is."""
        use = request.options.cache
        if use == "off":
            return "the request wants no cache"
        is_exact = self._settings.exact != "off" and (repeats(request) or use is not None)
        question = None if self._semantic is None else last_user_text(request)
        why = "an answer that chance could change" if question is None else why_unstorable(request, question)
        text = question if why is None else None
        if not is_exact and text is None:
            return why or "an answer that chance could change"
        return _Plan(
            request=request,
            key=key_of(request, self._settings.policy),
            text=text,
            is_exact=is_exact,
            reads=use in (None, "on", "read"),
            writes=use != "read",
            epoch=self._epoch,
        )

    async def _join(self, plan: _Plan) -> Answer | None:
        """The answer of whoever leads; None: this request leads, or goes alone."""
        plan.flight = self._flights.lead(plan.key)
        if plan.flight is None:
            outcome = await self._flights.follow(plan.key)
            if isinstance(outcome, Answer):
                return outcome
            plan.flight = outcome
        return None

    async def _found(self, plan: _Plan, judge: Judge) -> Answer | None:
        """What may be given again, by either tier."""
        if plan.is_exact:
            started_s = time.perf_counter()
            entry = (await self._store.get([plan.key])).get(plan.key)
            if entry is not None and (answer := _answer(entry, plan.request)) is not None:
                why = f"the same request was answered {max(0.0, self._clock() - entry.made_at):.0f} s ago"
                self._say(judge, "exact", "hit", why, since_s=started_s)
                plan.writes = False  # it is there
                if self._settings.exact == "on":
                    return answer
                if self._settings.semantic == "shadow":  # there is nothing to learn of the very same
                    return None
            elif plan.text is None:
                self._say(judge, "exact", "miss", "no such request is stored", since_s=started_s)
        return await self._found_by_meaning(plan, plan.text, judge) if plan.text is not None else None

    async def _found_by_meaning(self, plan: _Plan, text: str, judge: Judge) -> Answer | None:
        if self._semantic is None:
            return None
        started_s = time.perf_counter()
        look = plan.look = await self._semantic.look(plan.request, text)
        answer = None if look.entry is None else _answer(look.entry, plan.request)
        action = "miss" if answer is None else "hit" if look.verdict.action == "serve" else "explore"
        self._say(judge, "semantic", action, look.why, score=look.verdict.similarity, since_s=started_s)
        return answer if action == "hit" and self._settings.semantic == "on" else None

    async def _gathered(self, plan: _Plan, events: AsyncGenerator[Event, None], tab: Callable[[], Tab]) -> AsyncGenerator[Event, None]:
        seen: list[Event] = []
        async for event in events:
            plan.weight += _weight(event)
            if plan.weight <= self._settings.max_bytes:
                seen.append(event)
                if isinstance(event, Finish) and is_whole(event, seen) and not tab().stands_in:
                    plan.answer = answer_of(seen, event, tab())
                    plan.fits = plan.text is not None and why_unfit(seen) is None
            else:
                seen.clear()
            yield event

    def _store_afterwards(self, storing: Coroutine[None, None, None], plan: _Plan) -> None:
        if self._afterwards_bytes + plan.weight > self._settings.max_bytes or len(self._afterwards) >= MOST_AFTERWARDS:
            storing.close()
            if plan.flight is not None:
                self._flights.land(plan.flight)
            return

        def ended(task: asyncio.Task[None]) -> None:
            self._afterwards.discard(task)
            self._afterwards_bytes -= plan.weight

        self._afterwards_bytes += plan.weight
        task = asyncio.create_task(storing)
        self._afterwards.add(task)
        task.add_done_callback(ended)

    async def _stored(self, plan: _Plan, answer: Answer) -> None:
        try:
            if (entry := await self._entry(plan, answer)) is not None and plan.epoch == self._epoch:
                gone = await self._store.put(entry)
                if self._semantic is not None:
                    self._semantic.stored(entry, gone)
        except Exception:
            log.exception("an answer was not stored")
        finally:
            if plan.flight is not None:
                self._flights.land(plan.flight)

    async def _entry(self, plan: _Plan, answer: Answer) -> Entry | None:
        """What is to be stored, after what was tried is compared with it. An answer that says the same as the stored one it was
        compared with is not found by meaning, so that the trials of one meaning gather at one entry."""
        look, semantic = plan.look, self._semantic
        by_meaning = semantic is not None and plan.fits
        if semantic is not None and by_meaning and look is not None and look.entry is not None:
            by_meaning = not await semantic.compare(plan.request, look, answer)
            if not by_meaning and look.entry.key == plan.key:
                return None
        if not plan.writes or (plan.request.options.cache == "write" and await self._store.get([plan.key])):
            return None
        scope = vector = b""
        if semantic is not None and by_meaning and plan.text is not None:
            known = look is not None and look.vector
            scope, vector = (look.scope, look.vector) if look is not None and known else await semantic.placed(plan.request, plan.text)
        if not vector and not plan.is_exact:
            return None
        now = self._clock()
        return Entry(
            key=plan.key,
            scope=scope,
            tenant=plan.request.tenant,
            model=plan.request.model,
            made_at=now,
            until=now + self._settings.ttl_s,
            text=(plan.text or "") if vector else "",
            vector=vector,
            answer=written(answer),
        )

    def _say(self, judge: Judge, tier: str, action: str, why: str, *, score: float | None = None, since_s: float | None = None) -> None:
        self._counts[f"{tier} {action}"] += 1
        mode = self._settings.exact if tier == "exact" else self._settings.semantic
        took_s = 0.0 if since_s is None else time.perf_counter() - since_s
        judge(Judgement(room="cache", rule=tier, action=action, why=why, score=score, shadow=mode == "shadow", took_s=took_s))


def _answer(entry: Entry, request: Request) -> Answer | None:
    """The entry's answer, where it is this tenant's and this model's: its key or scope says so already."""
    if entry.tenant != request.tenant or entry.model != request.model:
        return None
    try:
        return read(entry.answer)
    except msgspec.DecodeError:  # another version of Penstock wrote it
        return None


def _weight(event: Event) -> int:
    """Roughly what an event takes in memory."""
    if isinstance(event, Delta):
        return 128 + len(event.text) + len(event.reasoning) + 8 * len(event.token_ids) + 256 * len(event.logprobs or ())
    if isinstance(event, Vectors):
        return 8 * sum(map(len, event.vectors))
    return 128
