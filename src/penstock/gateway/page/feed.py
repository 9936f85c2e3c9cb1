"""The live feed: server-sent events, one a second, the same bytes for all who watch in the same steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from penstock import __version__
from penstock.core.config import PageSettings
from penstock.core.errors import Forbidden, InvalidRequest, Overloaded, Unauthorized
from penstock.core.types import Health, Principal
from penstock.gateway.connection import EVENTS, Reply, while_connected
from penstock.gateway.edge import Exchange, exchange_of
from penstock.gateway.page.rows import Row, open_row, row_of
from penstock.trace.window import KEPT_S, Point, Window

MOST_VIEWERS = 64
PATIENCE_S = 30.0  # a browser that takes nothing of the feed for so long is gone
LATE_S = 0.02  # after a second's end, so that it surely has ended
AGAIN = 3  # steps told again: a long step of an engine is told when it ends, and belongs to the seconds before
STEPS_S = (1, 2, 5)
MOST_POINTS = 180  # at first
MOST_ROWS = 40  # of requests ended since the last tick; the list has the others
MOST_OPEN = 20


class Hello(Struct, frozen=True, kw_only=True):
    """The first event."""

    version: str
    started_at: float  # unix seconds
    history: int  # requests that are remembered
    key: str  # whose session this is; "": the server is open


class Tick(Struct, frozen=True, kw_only=True):
    """Each second's event; the first one brings the points of the past. A point replaces an earlier one of its time, a row an
    earlier one of its number."""

    now: float  # unix seconds
    points: tuple[Point, ...]
    open: int  # requests under way
    total: int  # requests that have ended since the start
    open_rows: tuple[Row, ...]  # the newest under way
    rows: tuple[Row, ...]  # the newest that have ended
    health: Health


class Feed:
    """An ASGI endpoint; `?step=` takes one of `STEPS_S`. It ends when the client leaves, and within a second of `stop` and of its
    key's end."""

    def __init__(self, window: Window, settings: PageSettings, health: Callable[[], Health]) -> None:
        self._window = window
        self._settings = settings
        self._health = health
        self._num_viewers = 0
        self._stopping = False
        self._told: dict[int, _Told] = {}  # by step

    def stop(self) -> None:
        """End every feed: a server that ends waits for what runs. May be called from a signal."""
        self._stopping = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        step_s = _step(QueryParams(scope["query_string"]).get("step", "1"))
        if self._num_viewers >= MOST_VIEWERS:
            raise Overloaded(f"{MOST_VIEWERS} watch already, the most", hint="close another page")
        reply = Reply(send)
        exchange = exchange_of(scope)
        hello = self._hello(exchange.principal)
        self._num_viewers += 1
        try:
            await while_connected(scope, receive, reply, self._tell(reply, hello, step_s, exchange), patience_s=PATIENCE_S)
        finally:
            self._num_viewers -= 1

    async def _tell(self, reply: Reply, hello: bytes, step_s: int, exchange: Exchange) -> None:
        await reply.start(EVENTS, headers=(("cache-control", "no-store"), ("x-accel-buffering", "no")))
        await reply.write(hello + self._tick(time.time() - min(KEPT_S, MOST_POINTS * step_s), step_s, after=0))
        while not self._stopping:
            await asyncio.sleep(1.0 - time.time() % 1.0 + LATE_S)
            try:
                exchange.check()
            except (Unauthorized, Forbidden):
                break
            await reply.write(self._shared(step_s))
        await reply.write(b"", last=True)

    def _hello(self, principal: Principal) -> bytes:
        hello = Hello(
            version=__version__,
            started_at=self._window.started_at,
            history=self._settings.history,
            key=principal.name or principal.key_id,
        )
        return _event("hello", hello)

    def _shared(self, step_s: int) -> bytes:
        second = int(time.time())
        told = self._told.get(step_s, _Told(0, 0, b""))
        if told.second != second:
            event = self._tick(second - AGAIN * step_s, step_s, after=told.total)
            told = self._told[step_s] = _Told(second, self._window.total, event)
        return told.event

    def _tick(self, since: float, step_s: int, *, after: int) -> bytes:
        window = self._window
        tick = Tick(
            now=time.time(),
            points=tuple(window.points(since, step_s)),
            open=window.num_open,
            total=window.total,
            open_rows=tuple(map(open_row, window.under_way(MOST_OPEN))),
            rows=tuple(map(row_of, window.requests(after=after, limit=MOST_ROWS))),
            health=self._health(),
        )
        return _event("tick", tick)


class _Told(Struct, frozen=True):
    """A tick that was told in this second, and how many requests had ended by then."""

    second: int
    total: int
    event: bytes


def _step(given: str) -> int:
    if given not in map(str, STEPS_S):
        raise InvalidRequest(f"step is {given[:20]!r}", hint=f"{', '.join(map(str, STEPS_S))} seconds go", param="step")
    return int(given)


def _event(name: str, data: Struct) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
