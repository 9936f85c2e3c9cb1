"""HTTP/1.1 as uvicorn speaks it, with four bounds that uvicorn leaves open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from penstock.core.types import Failure
from penstock.gateway.connection import LOST
from penstock.gateway.wire.errors import error_body

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 30.0


class BoundedProtocol(HttpToolsProtocol):
    """Bounds the number of connections and a request's head in size and time, and answers one request at a time.

    A connection too many is told so with a 503 and closed.

    What a client pipelines behind a request that is not answered yet is dropped, and the connection closes with that answer:
    uvicorn would stop reading to hold it back, and then a client that leaves goes unnoticed by the request that runs.
    """

    _lost: Sequence[Callable[[], None]] = ()  # what the request under way wants called when the connection is lost
    _in_head = False
    _head_bytes = 0
    _dropping = False  # what is parsed now was pipelined
    _head_timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        max_connections: int,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._max_connections = max_connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            transport.write(_turned_away(self._max_connections))
            transport.close()
            return
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        for tell in self._lost:
            tell()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._in_head = False
                self.send_400_response(f"The request head is larger than {MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        earlier: RequestResponseCycle | None = self.cycle
        if earlier is not None and not earlier.response_complete:
            earlier.keep_alive = False
            self._dropping = True
            return
        super().on_headers_complete()
        self._lost = self.scope["state"][LOST] = []
        if self.scope["method"] != "HEAD":  # nothing would follow its head
            self.cycle.transport = cast(asyncio.Transport, _HeadWithBody(self.transport))

    def on_body(self, body: bytes) -> None:
        if not self._dropping:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._dropping:
            super().on_message_complete()
            self.flow.resume_reading()  # a large body has paused it, and then nobody would see the client leave

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _HeadWithBody:
    """The transport of one response: its head waits for what follows at once, and leaves with it in one write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None  # b"": it has left

    def write(self, data: bytes) -> None:
        if self._head is None and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            return
        self._transport.write(self._head + data if self._head else data)
        if self._head:
            self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _turned_away(limit: int) -> bytes:
    """A whole response, written before anything was read."""
    failure = Failure(
        status=503,
        code="overloaded",
        message=f"the server has {limit} connections, its most",
        hint="close idle ones, or raise the server's max_connections",
        retryable=True,
    )
    body = error_body(failure)
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "retry-after: 1",
        "connection: close",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
