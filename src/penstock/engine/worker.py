"""The engine behind its messages, and the process that runs it.

`run` is the whole life of an engine: configure, load, then receive and step until told to stop. The engine's own
process calls it with a socket, the in-process mode with a queue; the engine cannot tell the difference.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.core.errors import Bug, PenstockError, UserError
from penstock.engine.link import EngineLink
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


def run(receive: Receive, emit: Emit, alive: Callable[[], bool] = lambda: True, *, alone: bool = False) -> None:
    """Serve one engine until `Stop`, until `alive()` is false, or until it breaks, which it reports as `Fatal`.

    `alone`: nobody else in this process uses torch.
    """
    configure = receive(None)
    if configure is None:
        return  # the client is gone already
    try:
        engine = _load(configure, emit)
        if alone and engine.info.plan.kernels != "torch":
            _one_torch_thread()
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


def _one_torch_thread() -> None:
    """Native kernels have threads of their own: torch's, which spin for work, would only take the cores from them."""
    import torch

    torch.set_num_threads(1)


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


def main(descriptor: int, parent: int) -> None:
    """Serve the process `parent`, which holds the other end of the socket `descriptor`. Ends when it is gone."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # the gateway drains first and then sends Stop
    link = EngineLink(socket.socket(fileno=descriptor), parent)
    run(link.receive, link.emit, link.alive, alone=True)
    link.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
