"""One HTTP exchange at ASGI's level: its body in, its bytes out, and its end when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from penstock.core.errors import InvalidRequest, TooLarge

JSON = "application/json"
EVENTS = "text/event-stream"


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises TooLarge as soon as that is known, InvalidRequest where it is not JSON or does not arrive in time.

    JSON must be called so: a page elsewhere can make a browser send text to a local port, but not `application/json`.
    """
    headers = Headers(scope=scope)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise InvalidRequest(f"content-type is {kind[:80]!r}", hint=f"send {JSON}")
    announced = headers.get("content-length", "")
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
    """The bytes of one response. `writing`: a write waits for the client; `num_writes` counts those begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.writing = False
        self.num_writes = 0

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


async def while_connected(receive: Receive, reply: Reply, work: Coroutine[None, None, None], *, patience_s: float) -> None:
    """Do `work`, which writes `reply`. Where the client leaves first, or takes nothing of a write for at least
    `patience_s`, cancel it and raise ClientDisconnect once it has cleaned up.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_leaving(receive))
    try:
        await _first_of(task, left, reply, patience_s)
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)
    if task.cancelled():
        raise ClientDisconnect
    task.result()


async def _first_of(task: asyncio.Future[None], left: asyncio.Future[None], reply: Reply, patience_s: float) -> None:
    """Wait for either to end, or for a write to make no progress from one look to the next: no timer for each write."""
    seen: int | None = None
    while True:
        done, _ = await asyncio.wait((task, left), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if done or (reply.writing and reply.num_writes == seen):
            return
        seen = reply.num_writes


async def _leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
