"""One server over HTTP: a pool of connections, server-sent events by the readful, and whatever goes wrong as an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
import time
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from penstock.core.config import UpstreamSettings
from penstock.core.errors import Bug, NotReady, PenstockError, Unsupported, UpstreamFailed
from penstock.upstream.refusal import refused

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 4.0  # uvicorn, which most servers run on, closes an idle connection after 5 s: never race with that
STALE_S = 0.5  # a kept connection that the server had closed shows so soon; later the server may have been at work
LAST_BYTES_S = 1.0  # how long the end of an answer that is over may take before its connection is given up
BRIEF_S = 15.0  # for a short document
MAX_EVENT_BYTES = 16 * 2**20
MAX_ERROR_BYTES = 64 * 2**10
MAY_LACK = ("/completions", "/embeddings", "/messages/count_tokens")  # a server that knows chats only is none the worse for it
LACKS = (404, 405, 501)
_LARGE_BYTES = 2**20 - 1  # aiohttp wants larger bodies as files, to write them bit by bit


class Answer:
    """A response under way. `complete`, set by its reader: all that matters has come, only the very end has not."""

    def __init__(self, upstream: str, response: aiohttp.ClientResponse) -> None:
        self.complete = False
        self.response = response
        self._upstream = upstream

    async def read(self) -> bytes:
        """All of it."""
        return await self.response.read()

    async def events(self) -> AsyncGenerator[list[bytes], None]:
        """The data of server-sent events, as many at a time as came together. An event is one `data:` line."""
        rest = b""
        content = self.response.content
        while piece := await content.readany():
            lines = (rest + piece).split(b"\n")
            rest = lines.pop()
            if found := [line[5:].strip() for line in lines if line.startswith(b"data:")]:
                yield found
            if len(rest) > MAX_EVENT_BYTES:
                raise UpstreamFailed(f"the upstream {self._upstream!r} sent an event of more than {MAX_EVENT_BYTES} bytes")
        if rest.startswith(b"data:"):
            yield [rest[5:].strip()]


class HTTP:
    """The connections to one upstream. Must be made on a running event loop, and closed."""

    def __init__(self, settings: UpstreamSettings, headers: Mapping[str, str]) -> None:
        self.name = settings.name
        self.closed = False
        self._open = 0  # answers under way
        self._quiet: asyncio.Event | None = None  # while closing: whether all of them have ended
        self._base = settings.url.rstrip("/")
        self._urls: dict[str, URL] = {}
        self._streaming = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s, sock_read=settings.idle_s)
        self._whole = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s)  # silent until it is complete
        self._connect_s = settings.connect_s
        self._draining: set[asyncio.Task[None]] = set()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.max_connections, keepalive_timeout=KEEP_ALIVE_S, socket_factory=self._socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept-encoding": "identity", "user-agent": "penstock", **headers, **settings.headers},
        )

    @asynccontextmanager
    async def post(
        self, path: str, body: bytes, *, streams: bool, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Answer, None]:
        """The answer to `body`, its status below 300. Leaving early closes the connection, so that the server stops.

        Streams fail after `idle_s` without a byte. Raises UpstreamFailed, and what a refusal translates to.
        """
        if self.closed:
            raise NotReady(f"the upstream {self.name!r} is closed")
        answer: Answer | None = None
        self._open += 1
        try:
            response = await self._ask(path, body, self._streaming if streams else self._whole, headers or {})
            answer = Answer(self.name, response)
            if response.status >= 300:
                raise await self._refusal(response, path)
            yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._broken(error, answering=answer is not None, limit_s=self._streaming.sock_read) from error
        finally:
            self._open -= 1
            if self._quiet is not None and not self._open:
                self._quiet.set()
            if answer is not None:
                self._leave(answer)

    async def get(self, path: str, *, within_s: float = BRIEF_S) -> bytes:
        """A short document. Raises as `post` does."""
        limits = aiohttp.ClientTimeout(total=within_s, sock_connect=self._connect_s)
        try:
            async with self._session.get(self._url(path), timeout=limits, allow_redirects=False) as response:
                if response.status >= 300:
                    raise await self._refusal(response, path)
                return await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._broken(error, answering=False, limit_s=within_s) from error

    async def close(self) -> None:
        """Close every connection; answers still under way break off."""
        self.closed = True
        for connected in self._sockets:  # aiohttp would leave those who wait for an answer waiting
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        if self._open:
            self._quiet = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), LAST_BYTES_S)
        draining = list(self._draining)
        for task in draining:
            task.cancel()
        await asyncio.gather(*draining, return_exceptions=True)
        await self._session.close()

    async def _ask(self, path: str, body: bytes, limits: aiohttp.ClientTimeout, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The head of the answer. A kept connection may have been closed on the other side just now: then a second one is tried."""
        for is_last in (False, True):
            asked_s = time.monotonic()
            try:
                return await self._session.post(
                    self._url(path),
                    data=body if len(body) <= _LARGE_BYTES else io.BytesIO(body),
                    headers={"content-type": "application/json", **headers},
                    timeout=limits,
                    allow_redirects=False,
                )
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if is_last or self.closed or time.monotonic() - asked_s > STALE_S:
                    raise
        raise Bug("the loop has no third round")

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made

    def _leave(self, answer: Answer) -> None:
        """Keep the connection of a complete answer, close any other; one that was read to its end is kept already."""
        if not answer.complete or answer.response.content.at_eof() or self.closed:
            answer.response.close()
            return
        task = asyncio.create_task(_drained(answer.response))
        self._draining.add(task)

        def drained(task: asyncio.Task[None]) -> None:
            self._draining.discard(task)
            answer.response.close()

        task.add_done_callback(drained)

    def _url(self, path: str) -> URL:
        """Parsed once for each path, of which there are few."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base + path)
        return url

    async def _refusal(self, response: aiohttp.ClientResponse, path: str) -> PenstockError:
        body = await response.content.read(MAX_ERROR_BYTES)
        log.warning("upstream %s answered %d: %s", self.name, response.status, body[:500].decode(errors="replace"))
        error = refused(self.name, response.status, response.headers, body)
        if isinstance(error, UpstreamFailed) and response.status in LACKS and path in MAY_LACK:
            return Unsupported(f"the upstream {self.name!r} has no {path}", hint="ask it for chat completions", param="model")
        return error

    def _broken(self, error: Exception, *, answering: bool, limit_s: float | None) -> UpstreamFailed:
        """What happened to the connection, without addresses: the log has those. `limit_s` is what a timeout waited for."""
        log.warning("upstream %s: %s: %s", self.name, type(error).__name__, error)
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return UpstreamFailed(f"the upstream {self.name!r} cannot be reached")
        if isinstance(error, TimeoutError):
            return UpstreamFailed(f"the upstream {self.name!r} sent nothing for {limit_s:g} s")
        return UpstreamFailed(f"the upstream {self.name!r} broke off {'its answer' if answering else 'before it answered'}")


async def _drained(response: aiohttp.ClientResponse) -> None:
    """Read to the very end, which brings the connection back into the pool."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with asyncio.timeout(LAST_BYTES_S):
            while await response.content.readany():
                pass
