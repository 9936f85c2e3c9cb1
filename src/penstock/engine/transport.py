"""How messages reach an engine: over a private Unix socket to its own process, or through queues to a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable

import msgspec
import zmq
import zmq.asyncio

from penstock.engine.messages import FromEngine, Stop, ToEngine

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0  # from Stop to SIGKILL

Received = Callable[[FromEngine], None]
Lost = Callable[[str], None]


class ProcessTransport:
    """An engine in its own process: a crash, a long step or the GIL on one side never stalls the other."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="penstock-")  # mode 0700: no other user reaches the socket
        self._context = zmq.asyncio.Context(io_threads=1)
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)  # ms; the process binds once it has started
        self._encoder = msgspec.msgpack.Encoder()
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def open(self, receive: Received, lost: Lost) -> None:
        address = f"ipc://{self._folder}/engine"
        self._socket.connect(address)  # the connecting side queues what is sent before the other is there
        command = (sys.executable, "-m", "penstock.engine.worker", address, str(os.getpid()))
        self._process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        self._tasks = [asyncio.create_task(self._read(receive, lost)), asyncio.create_task(self._watch(self._process, lost))]

    def send(self, message: ToEngine) -> None:
        # Not zmq.Socket.send: a plain send may swallow the edge that says "there is something to read", and `_read` would sleep on.
        self._socket.send(self._encoder.encode(message), zmq.NOBLOCK)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._socket.closed:
            self.send(Stop())
        if self._process is not None and self._process.returncode is None:
            await self._end(self._process)
        self._socket.close(linger=0)
        self._context.term()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        try:
            await asyncio.wait_for(process.wait(), STOP_GRACE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _read(self, receive: Received, lost: Lost) -> None:
        decoder = msgspec.msgpack.Decoder(FromEngine)
        try:
            while True:
                receive(decoder.decode(await self._socket.recv()))
        except Exception as error:
            log.exception("cannot read from the engine")
            lost(f"what it says cannot be read: {error}")

    async def _watch(self, process: asyncio.subprocess.Process, lost: Lost) -> None:
        code = await process.wait()
        await asyncio.sleep(0.05)  # let what it said last be read: it may say why
        lost(f"its process ended with signal {-code}" if code < 0 else f"its process ended with exit code {code}")


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
