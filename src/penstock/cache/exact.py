"""Whole answers in this process's memory, given again to the very same request.

A request is looked up when its answer could not come out otherwise: temperature 0, a seed, or vectors. Its key is a digest of
everything that could change the answer, and of whose it is: the tenant, and the models that the key may use, so that an answer
never reaches a key that could not have asked for it. An answer is kept when it is whole (it ended by itself or at its limit),
called no tool and fits. The longest unused go first; none is given again after its time.

A hit is played back as the events that were streamed, piece by piece.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.cache.protocol import Found
from penstock.core.config import CacheSettings
from penstock.core.types import (
    Delta,
    EngineUse,
    Event,
    Finish,
    Judge,
    Principal,
    PromptInfo,
    Request,
    Route,
    Sampling,
    Timings,
    Usage,
    Vectors,
)
from penstock.trace import Tab

ENTRY_BYTES = 512  # what an entry takes beside its answer
GREEDY = Sampling(temperature=0.0)
_SCOPE = msgspec.msgpack.Encoder(order="sorted")  # dicts that are equal are written alike


class _Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was streamed, and what it took."""

    prompt: PromptInfo | None = None
    deltas: tuple[Delta, ...] = ()
    vectors: Vectors | None = None
    finish: Finish
    route: Route
    usage: Usage
    use: EngineUse | None = None


class _Entry(Struct, frozen=True):
    written: bytes  # an _Answer
    until_s: float


class ExactCache:
    """Holds at most `settings.max_bytes` of answers. `clock` is in seconds, monotonic. Used from one event loop."""

    def __init__(self, settings: CacheSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(_Answer)

    @property
    def held_bytes(self) -> int:
        """Memory taken by answers."""
        return self._bytes

    async def find(self, request: Request, judge: Judge) -> Found:
        if not _repeats(request):
            return Found(state="bypass")
        digest = _digest(request)
        entry = self._entries.get(digest)
        if entry is None:
            return Found(state="miss", key=digest)
        if self._clock() >= entry.until_s:
            self._drop(digest)
            return Found(state="miss", key=digest)
        self._entries.move_to_end(digest)
        answer = self._decoder.decode(entry.written)
        return Found(state="hit", events=_events(answer), route=answer.route, usage=answer.usage, use=answer.use)

    def keep(self, found: Found, events: AsyncGenerator[Event, None], tab: Callable[[], Tab]) -> AsyncGenerator[Event, None]:
        return self._keeping(found.key, events, tab) if found.state == "miss" else events

    async def done(self, found: Found, *, good: bool) -> None:
        pass

    async def close(self) -> None:
        pass

    async def _keeping(self, key: bytes, events: AsyncGenerator[Event, None], tab: Callable[[], Tab]) -> AsyncGenerator[Event, None]:
        seen: list[Event] = []
        async for event in events:
            seen.append(event)
            if isinstance(event, Finish) and _is_whole(event, seen):
                self._store(key, _answer(seen, event, tab()))
            yield event

    def _store(self, digest: bytes, answer: _Answer) -> None:
        entry = _Entry(self._encoder.encode(answer), self._clock() + self._settings.ttl_s)
        size = _size(entry)
        if size > self._settings.max_bytes:
            return
        if digest in self._entries:
            self._drop(digest)
        while self._bytes + size > self._settings.max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[digest] = entry
        self._bytes += size

    def _drop(self, digest: bytes) -> None:
        self._bytes -= _size(self._entries.pop(digest))


def _size(entry: _Entry) -> int:
    return len(entry.written) + ENTRY_BYTES


def _repeats(request: Request) -> bool:
    """Whether asking again could not give another answer."""
    return request.inputs is not None or request.sampling.temperature == 0.0 or request.sampling.seed is not None


def _digest(request: Request) -> bytes:
    """Of all but what cannot change the answer: who exactly asks, under which id, how urgently, in how many pieces."""
    sampling = request.sampling
    if request.inputs is not None:
        sampling = GREEDY
    elif sampling.temperature == 0.0:  # no chance is involved
        sampling = replace(sampling, seed=None, top_k=None, top_p=1.0, min_p=0.0)
    scope = Principal(models=request.principal.models)
    asked = replace(request, id="", principal=scope, priority=0, deadline_s=None, streams=True, sampling=sampling)
    return hashlib.blake2b(_SCOPE.encode(asked), digest_size=32).digest()


def _is_whole(finish: Finish, seen: list[Event]) -> bool:
    if finish.reason not in ("stop", "length") or finish.failure is not None:
        return False
    return not any(isinstance(event, Delta) and event.tool_calls for event in seen)


def _answer(seen: list[Event], finish: Finish, tab: Tab) -> _Answer:
    return _Answer(
        prompt=next((event for event in seen if isinstance(event, PromptInfo)), None),
        deltas=tuple(event for event in seen if isinstance(event, Delta)),
        vectors=next((event for event in seen if isinstance(event, Vectors)), None),
        finish=replace(finish, timings=Timings(), cost_usd=None),  # those of the replay are its own
        route=tab.route,
        usage=tab.usage or finish.usage,
        use=tab.use,
    )


def _events(answer: _Answer) -> tuple[Event, ...]:
    begin: tuple[Event, ...] = () if answer.prompt is None else (answer.prompt,)
    vectors: tuple[Event, ...] = () if answer.vectors is None else (answer.vectors,)
    return (*begin, *answer.deltas, *vectors, answer.finish)
