"""How messages reach an engine: through a socket pair to its own process, or through queues to a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable

import msgspec

from penstock.engine.link import FrameReader, FrameWriter
from penstock.engine.messages import FromEngine, Stop, ToEngine

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0  # from Stop to SIGKILL

Received = Callable[[FromEngine], None]
Lost = Callable[[str], None]


class ProcessTransport:
    """An engine in its own process: a crash, a long step or the GIL on one side never stalls the other."""

    def __init__(self) -> None:
        self._writer = FrameWriter()
        self._link: asyncio.Transport | None = None
        self._incoming: _Incoming | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def open(self, receive: Received, lost: Lost) -> None:
        ours, theirs = socket.socketpair()
        with theirs:  # the process inherits a copy; with ours closed, it alone holds that end
            loop = asyncio.get_running_loop()
            self._link, self._incoming = await loop.create_unix_connection(lambda: _Incoming(receive, lost), sock=ours)
            command = (sys.executable, "-m", "penstock.engine.worker", str(theirs.fileno()), str(os.getpid()))
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"OMP_WAIT_POLICY": "passive", **os.environ},  # torch's threads must not spin on cores that the gateway needs
            )
        self._watcher = asyncio.create_task(self._watch(self._process, lost))

    def send(self, message: ToEngine) -> None:
        if self._link is not None and not self._link.is_closing():  # else it is lost, and the client hears of that
            self._link.write(bytes(self._writer.frame(message)))

    async def close(self) -> None:
        if self._incoming is not None:
            self._incoming.stop()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        self.send(Stop())
        if self._process is not None and self._process.returncode is None:
            await self._end(self._process)
        if self._link is not None:
            self._link.close()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        try:
            await asyncio.wait_for(process.wait(), STOP_GRACE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _watch(self, process: asyncio.subprocess.Process, lost: Lost) -> None:
        code = await process.wait()
        await asyncio.sleep(0.05)  # let what it said last be read: it may say why
        lost(f"its process ended with signal {-code}" if code < 0 else f"its process ended with exit code {code}")


class _Incoming(asyncio.Protocol):
    """Hands on each message of an engine as it arrives. Once stopped it only reads, so that the engine need not wait to be heard."""

    def __init__(self, receive: Received, lost: Lost) -> None:
        self._receive, self._lost = receive, lost
        self._decoder = msgspec.msgpack.Decoder(FromEngine)
        self._reader = FrameReader()
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            return
        try:
            for message in self._reader.feed(data):
                self._receive(self._decoder.decode(message))
        except Exception as error:
            log.exception("cannot read from the engine")
            self._lost(f"what it says cannot be read: {error}")


class ThreadTransport:
    """An engine in a thread of this process: nothing to set up, but a crash or a long step is everybody's."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def open(self, receive: Received, lost: Lost) -> None:
        loop = asyncio.get_running_loop()

        def post(call: Callable[[], None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed first
                loop.call_soon_threadsafe(call)

        def serve() -> None:
            from penstock.engine.worker import run

            run(self._receive, lambda message: post(lambda: receive(message)))
            post(lambda: lost("its thread ended"))

        self._thread = threading.Thread(target=serve, name="penstock-engine", daemon=True)
        self._thread.start()

    def send(self, message: ToEngine) -> None:
        self._inbox.put(message)

    async def close(self) -> None:
        self.send(Stop())
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_GRACE_S)

    def _receive(self, timeout_s: float | None) -> ToEngine | None:
        with contextlib.suppress(queue.Empty):
            return self._inbox.get(block=timeout_s != 0, timeout=timeout_s)
        return None
