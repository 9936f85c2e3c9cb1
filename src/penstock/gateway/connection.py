"""One HTTP exchange at ASGI's level: its body in, its bytes out, and its end when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from penstock.core.errors import Bug, InvalidRequest, TooLarge

JSON = "application/json"
LOST = "lost"  # in a scope's state: a list of what to call when the connection is lost
EVENTS = "text/event-stream"


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises TooLarge as soon as that is known, InvalidRequest where it is not JSON or does not arrive in time.

    JSON must be called so: a page elsewhere can make a browser send text to a local port, but not `application/json`.
    """
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != JSON.encode():
        raise InvalidRequest(f"content-type is {kind[:80].decode('latin-1')!r}", hint=f"send {JSON}")
    announced = headers.get(b"content-length", b"").decode("latin-1")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(announced, max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _collect(receive, max_bytes)
    except TimeoutError:
        raise InvalidRequest(f"the body did not arrive within {timeout_s:g} s") from None


async def _collect(receive: Receive, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(f"more than {max_bytes}", max_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(given: str, limit: int) -> TooLarge:
    return TooLarge(f"the body has {given[:24]} bytes; the most is {limit}", hint="the server's max_body_bytes sets the limit")


class Reply:
    """The bytes of one response. `writing`: a write waits for the client; `num_writes` counts those begun; `ended`: all are written."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.writing = False
        self.num_writes = 0
        self.ended = False

    async def json(self, body: bytes, *, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> None:
        """A whole response."""
        await self.start(JSON, status=status, headers=(("content-length", str(len(body))), *headers))
        await self.write(body, last=True)

    async def start(self, content_type: str, *, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send the head."""
        named = (("content-type", content_type), *headers)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        """Send a piece of the body; waits while the client is slow to read."""
        self.num_writes += 1
        self.writing = True
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})
        self.writing = False
        self.ended = last


async def while_connected(scope: Scope, receive: Receive, reply: Reply, work: Coroutine[None, None, None], *, patience_s: float) -> None:
    """Do `work`, which writes `reply`. Where the client leaves first, or takes nothing of a write for at least
    `patience_s`, cancel it and raise ClientDisconnect once it has cleaned up.
    """
    watch = _Watch(reply, patience_s)
    stop = _call_when_lost(scope, receive, watch.interrupt)
    try:
        await work
    except asyncio.CancelledError:
        if watch.interrupted and watch.task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        watch.end()
        stop()


def _call_when_lost(scope: Scope, receive: Receive, tell: Callable[[], None]) -> Callable[[], object]:
    """`tell` when the client leaves. Our own server calls those who ask it to; another's is asked by a task. Returns what ends it."""
    lost: list[Callable[[], None]] | None = scope["state"].get(LOST)
    if lost is not None:
        lost.append(tell)
        return lost.clear
    left = asyncio.ensure_future(_leaving(receive))
    left.add_done_callback(lambda _: tell())
    return left.cancel


class _Watch:
    """Over the task that writes `reply`: interrupts it where a write makes no progress from one look to the next, so that no
    write needs a timer of its own."""

    def __init__(self, reply: Reply, patience_s: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise Bug("a request is answered outside of a task")
        self.task = task
        self.interrupted = False
        self._ended = False
        self._reply = reply
        self._patience_s = patience_s
        self._seen = -1
        self._timer = task.get_loop().call_later(patience_s, self._look)

    def interrupt(self) -> None:
        """Unless the work has ended, or all is written: whoever has everything may leave."""
        if not self._ended and not self._reply.ended:
            self.interrupted = True
            self.task.cancel()

    def end(self) -> None:
        self._ended = True
        self._timer.cancel()

    def _look(self) -> None:
        if self._reply.writing and self._reply.num_writes == self._seen:
            self.interrupt()
            return
        self._seen = self._reply.num_writes
        self._timer = self.task.get_loop().call_later(self._patience_s, self._look)


async def _leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
