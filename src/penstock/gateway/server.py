"""The HTTP server: one socket, one process, an end that lets running requests finish."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from penstock.core.config import ServerSettings
from penstock.core.errors import UserError
from penstock.gateway.protocol import BoundedProtocol

KEEP_ALIVE_S = 30  # an idle connection is kept for so long
CLEAN_UP_S = 2.0  # for requests cut off by the end of the drain
SPARE_FILES = 256  # for logs, databases and libraries
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def bind(settings: ServerSettings) -> socket.socket:
    """A socket on the host and port, not listening yet. Raises UserError where that cannot be.

    Bound before a model is loaded, so that a port in use is known at once.
    """
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise UserError(f"the host {host!r} is not an address of this machine: {error}", hint="127.0.0.1 or 0.0.0.0 go") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _unbindable(host, port, error) from None
    return bound


def url(bound: socket.socket) -> str:
    """Where the socket is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: ASGIApp,
    settings: ServerSettings,
    *,
    bound: socket.socket | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then let what runs finish within `drain_s`. A second signal stops at once.

    `on_ready` is told the URL once connections are accepted, `on_stop` when the first signal comes.
    Raises UserError where the port cannot be had.
    """
    bound = bound or bind(settings)
    config = uvicorn.Config(
        app,
        http=partial(BoundedProtocol, max_connections=settings.max_connections),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # the edge logs each request and each error, once
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )
    _allow_files(settings.max_connections)
    try:
        bound.listen(config.backlog)  # two may bind a port at a time, but only one can listen
    except OSError as error:
        bound.close()
        raise _unbindable(settings.host, settings.port, error) from None
    server = _Server(config, on_ready=lambda: on_ready(url(bound)), on_stop=on_stop)
    try:
        await server.serve(sockets=[bound])
    finally:
        await server.cut_off()
        bound.close()


class _Server(uvicorn.Server):
    """uvicorn's server, stopping at once on any second signal, and leaving the process to end as it will."""

    def __init__(self, config: uvicorn.Config, *, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        self.servers = []  # uvicorn sets it only once it listens
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self._on_stop()
        self.force_exit = self.should_exit
        self.should_exit = True

    async def cut_off(self) -> None:
        """Accept nothing more; cancel what still runs, and let it say so to its clients."""
        for listener in self.servers:
            listener.close()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLEAN_UP_S)
        for connection in list(self.server_state.connections):
            connection.transport.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def _allow_files(connections: int) -> None:
    """Room for so many sockets, and as many again to upstreams, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _unbindable(host: str, port: int, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(f"port {port} on {host} is in use", hint="stop what uses it, or choose another with --port (0: any free one)")
    if error.errno == errno.EACCES:
        return UserError(f"port {port} on {host} needs more rights", hint="choose a port above 1023 with --port")
    return UserError(f"cannot listen on {host} port {port}: {error.strerror}", hint="127.0.0.1 or 0.0.0.0 go as a host")
