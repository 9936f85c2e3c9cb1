"""The engine behind its messages, and the process that runs it.

`run` is the whole life of an engine: configure, load, then receive and step until told to stop. The engine's own
process calls it with a ZeroMQ socket, the in-process mode with a queue; the engine cannot tell the difference.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from penstock.core.errors import Bug, PenstockError, UserError
from penstock.engine.messages import (
    Abort,
    Configure,
    Fatal,
    FromEngine,
    Job,
    Loading,
    Output,
    Ready,
    Step,
    Stop,
    Submit,
    ToEngine,
)

if TYPE_CHECKING:
    from penstock.engine.engine import Engine

log = logging.getLogger(__name__)

IDLE_POLL_S = 1.0  # how long an idle engine sleeps before it looks whether its parent still lives

Receive = Callable[[float | None], ToEngine | None]  # waits up to so many seconds, or as long as it takes
Emit = Callable[[FromEngine], None]


def run(receive: Receive, emit: Emit, alive: Callable[[], bool] = lambda: True) -> None:
    """Serve one engine until `Stop`, until `alive()` is false, or until it breaks, which it reports as `Fatal`."""
    configure = receive(None)
    if configure is None:
        return  # the client is gone already
    try:
        engine = _load(configure, emit)
        emit(Ready(info=engine.info))
        _serve(engine, receive, emit, alive)
    except UserError as error:
        emit(Fatal(failure=error.failure()))
    except Exception:  # the border of the process: whatever it is, the client must hear of it
        log.exception("the engine met a bug and ends")
        emit(Fatal(failure=Bug("internal error in the engine", hint="the server's log has the details").failure()))


def _load(configure: ToEngine, emit: Emit) -> Engine:
    from penstock.engine.loading import load_engine

    if not isinstance(configure, Configure):
        raise Bug(f"the first message to an engine must be Configure, not {type(configure).__name__}")
    return load_engine(
        configure.model,
        configure.spec,
        lambda stage, done, total: emit(Loading(stage=stage, done=done, total=total)),
    )


def _serve(engine: Engine, receive: Receive, emit: Emit, alive: Callable[[], bool]) -> None:
    """Receive what there is, then step; audit and report once when the work has run out."""
    audited = True
    while alive():
        message = receive(0.0 if engine.has_work else IDLE_POLL_S)
        while message is not None:
            if isinstance(message, Stop):
                return
            _handle(engine, message, emit)
            audited = False
            message = receive(0.0)
        if engine.has_work:
            emit(Step(outputs=engine.step(), stats=engine.stats()))
        elif not audited:
            engine.audit()
            emit(Step(outputs=(), stats=engine.stats()))
            audited = True


def _handle(engine: Engine, message: ToEngine, emit: Emit) -> None:
    match message:
        case Abort():
            ended = [output for job_id in message.ids if (output := engine.abort(job_id)) is not None]
            if ended:
                emit(Step(outputs=tuple(ended), stats=engine.stats()))
        case Submit():
            refused = [output for job in message.jobs if (output := _add(engine, job)) is not None]
            if refused:
                emit(Step(outputs=tuple(refused), stats=engine.stats()))
        case _:
            raise Bug(f"a running engine was sent {type(message).__name__}")


def _add(engine: Engine, job: Job) -> Output | None:
    """None, or the output that says why the job is refused."""
    try:
        engine.add(job)
    except PenstockError as error:
        return Output(id=job.id, finish_reason="error", failure=error.failure())
    return None


def main(address: str, parent: int) -> None:
    """Serve the client that connects to `address`, an ipc:// one. Ends when the process `parent` is gone."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # the gateway drains first and then sends Stop
    decoder = msgspec.msgpack.Decoder(ToEngine)
    encoder = msgspec.msgpack.Encoder()
    context = zmq.Context(io_threads=1)
    socket = context.socket(zmq.PAIR)
    socket.set_hwm(0)  # what can pile up is bounded by the jobs that were accepted
    socket.setsockopt(zmq.SNDTIMEO, int(IDLE_POLL_S * 1000))
    socket.bind(address)

    def alive() -> bool:
        return os.getppid() == parent

    def receive(timeout_s: float | None) -> ToEngine | None:
        while not socket.poll(int((IDLE_POLL_S if timeout_s is None else timeout_s) * 1000)):
            if timeout_s is not None or not alive():
                return None
        message: ToEngine = decoder.decode(socket.recv())
        return message

    def emit(message: FromEngine) -> None:
        encoded = encoder.encode(message)
        while alive():
            with contextlib.suppress(zmq.Again):  # nobody at the other end: it connects soon, or is gone
                socket.send(encoded)
                return

    run(receive, emit, alive)
    socket.close(linger=2000)
    context.term()
    if os.getppid() != parent:  # nobody else is left to tidy up
        shutil.rmtree(Path(address.removeprefix("ipc://")).parent, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
