"""The answer cache's protocol and the cache that holds nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol, runtime_checkable

from msgspec import Struct

from penstock.cache.store.protocol import Held, Part
from penstock.core.types import CacheState, EngineUse, Event, Judge, Request, Route, Usage
from penstock.trace import Tab


class Found(Struct, frozen=True, kw_only=True):
    """What the cache has. On a hit: the answer's events, the `Finish` last, and what it once took to make it."""

    state: CacheState
    why: str = ""
    key: bytes = b""  # under which the answer to come is kept
    events: tuple[Event, ...] = ()
    route: Route | None = None
    usage: Usage = Usage()
    use: EngineUse | None = None
    saw: object = None  # what the cache itself wants to find again in `keep` and `done`


class Cache(Protocol):
    """Whole answers, found by everything that could change them: tenant, model, prompt, tools, sampling."""

    async def find(self, request: Request, judge: Judge) -> Found:
        """An earlier answer that may stand for this one, or why there is none. `done` follows in any case."""

    def keep(self, found: Found, events: AsyncGenerator[Event, None], tab: Callable[[], Tab]) -> AsyncGenerator[Event, None]:
        """Pass on `events` as the model made them, and gather them.

        `found` is what `find` said, `tab()` the attempt that made the answer.
        """

    async def done(self, found: Found, *, good: bool) -> None:
        """The request is over. `good`: its whole answer went out, so what was gathered may be stored."""

    async def close(self) -> None:
        """Let go of the store."""


@runtime_checkable
class Clearable(Protocol):
    """A cache that holds answers, and can be looked into and told to forget."""

    async def held(self) -> tuple[Held, Mapping[str, int]]:
        """What is stored, and how often this process decided what since it began. Raises NotReady where the store is down."""

    async def clear(self, part: Part) -> int:
        """Forget these answers, also those that are being made now. Returns how many there were. Raises NotReady."""


class NoCache:
    """Finds nothing and keeps nothing."""

    async def find(self, request: Request, judge: Judge) -> Found:
        return Found(state="off")

    def keep(self, found: Found, events: AsyncGenerator[Event, None], tab: Callable[[], Tab]) -> AsyncGenerator[Event, None]:
        return events

    async def done(self, found: Found, *, good: bool) -> None:
        pass

    async def close(self) -> None:
        pass
