"""The engine's async client: submit jobs, receive outputs, survive the engine's death.

`EngineClient` does the bookkeeping; how messages travel is its `Transport`'s business: to a process of its own
(`ProcessTransport`, the default) or to a thread of this one (`ThreadTransport`, for notebooks and tests).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal, Protocol, TypeVar

from penstock.core.config import EngineSpec
from penstock.core.errors import (
    EngineDied,
    InvalidRequest,
    NotReady,
    Overloaded,
    PenstockError,
    UserError,
    from_failure,
)
from penstock.core.types import EngineUse, Health
from penstock.engine.messages import (
    Abort,
    Configure,
    EngineInfo,
    EngineStats,
    Fatal,
    FromEngine,
    Job,
    Loading,
    Output,
    Ready,
    Step,
    Submit,
    ToEngine,
)

log = logging.getLogger(__name__)

RESTART_PAUSE_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # before the 1st, 2nd, … attempt in a row
RETRY_AFTER_S = 1.0
FAREWELL_S = 1.0  # how long to wait for the engine to say what an aborted job has used

T = TypeVar("T")


class Stream:
    """What came for the jobs of one submission, which belong to one account. One task reads it."""

    def __init__(self, account: str) -> None:
        self.account = account
        self._items: deque[Output | PenstockError] = deque()
        self._waiter: asyncio.Future[None] | None = None  # of the reader, while there is nothing

    def put(self, item: Output | PenstockError) -> None:
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Output | PenstockError:
        """The next item, once there is one."""
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        return self._items.popleft()


class Transport(Protocol):
    """Carries messages to one engine and back. `lost` is called once when the engine is gone without being told to."""

    async def open(self, receive: Callable[[FromEngine], None], lost: Callable[[str], None]) -> None: ...

    def send(self, message: ToEngine) -> None: ...

    async def close(self) -> None: ...


class EngineClient:
    """One engine as seen from an asyncio loop. Every submitted job ends: finished, aborted, or with an error."""

    def __init__(self, model: str, spec: EngineSpec | None = None, connect: Callable[[], Transport] | None = None) -> None:
        self.model = model
        self.spec = spec or EngineSpec()
        self.stats = EngineStats()
        self._connect = connect or _transport(self.spec)
        self._transport: Transport | None = None
        self._info: EngineInfo | None = None
        self._state: Literal["starting", "ready", "restarting", "stopped"] = "starting"
        self._why = "the engine is loading"
        self._streams: dict[str, Stream] = {}
        self._loaded: asyncio.Future[EngineInfo] | None = None
        self._progress: Callable[[Loading], None] | None = None
        self._callbacks: list[Callable[[EngineStats], None]] = []
        self._owing_since_s: float | None = None  # None: nothing was asked of it that it has not answered
        self._restart: asyncio.Task[None] | None = None

    @property
    def info(self) -> EngineInfo:
        """What the engine serves; raises NotReady before the first `start` has succeeded."""
        if self._info is None:
            raise NotReady("the engine has not loaded its model yet")
        return self._info

    @property
    def num_in_flight(self) -> int:
        return len(self._streams)

    async def start(self, progress: Callable[[Loading], None] | None = None) -> EngineInfo:
        """Launch the engine and wait until its model is loaded. Raises LoadError, MemoryPlanError or EngineDied."""
        self._progress = progress
        return await self._launch()

    def on_step(self, callback: Callable[[EngineStats], None]) -> None:
        """Call `callback` with the engine's statistics after each of its steps."""
        self._callbacks.append(callback)

    async def submit(self, jobs: Sequence[Job], used: dict[str, EngineUse] | None = None) -> AsyncGenerator[Output, None]:
        """Outputs of all `jobs` as they come, until each has finished. Closing the generator early aborts what runs.

        `used` is told what each job has used, the last news when the generator has closed: it waits for them up to
        `FAREWELL_S`, and where they do not come, what was told before stays.
        Raises Overloaded when the queue is full, NotReady while the engine is not up, EngineDied when it dies meanwhile,
        InvalidRequest for a job that the engine refuses.
        """
        queue = self._enter(jobs)
        unfinished = {job.id for job in jobs}
        try:
            while unfinished:
                item = await queue.get()
                if isinstance(item, PenstockError):
                    raise item
                _take(item, unfinished, used)
                if item.failure is not None:
                    raise from_failure(item.failure)
                yield item
        finally:
            await self._leave(queue, unfinished, used)

    def abort(self, ids: Sequence[str]) -> None:
        """End some jobs of a `submit`; each still yields one last output, which comes from the engine."""
        live = tuple(job_id for job_id in ids if job_id in self._streams)
        if live:
            self._send(Abort(ids=live))

    def health(self) -> Health:
        """Ready means forward progress: an engine that owes an answer for `step_deadline_s` has stalled, clients or not."""
        silent_s = 0.0 if self._owing_since_s is None else time.monotonic() - self._owing_since_s
        if self._state == "ready" and silent_s > self.spec.step_deadline_s:
            why = f"work is queued and no step finished for {silent_s:.0f} s"
            return Health(state="stalled", why=f"{why} (the limit is {self.spec.step_deadline_s:g} s)")
        return Health(state=self._state, why=self._why)

    async def close(self) -> None:
        """Stop the engine; what is in flight ends with an error."""
        self._state, self._why = "stopped", "the engine was stopped"
        stopped = EngineDied(self._why)
        self._settle(stopped)
        self._fail_all(stopped)
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        await self._disconnect()

    # -- submitting

    def _enter(self, jobs: Sequence[Job]) -> Stream:
        if self._state != "ready":
            raise NotReady(f"the engine is {self._state}: {self._why}", hint="try again shortly", retry_after_s=RETRY_AFTER_S)
        limit = self.info.plan.max_num_seqs + self.spec.max_queue
        if len(jobs) > limit:
            raise InvalidRequest(f"{len(jobs)} sequences in one request, the engine takes {limit} in all", param="n")
        if len(self._streams) + len(jobs) > limit and self._has_its_share(jobs, limit):
            raise Overloaded(
                f"{len(self._streams)} sequences run or wait, the limit is {limit}",
                hint="try again after the time in Retry-After",
                retry_after_s=RETRY_AFTER_S,
            )
        queue = Stream(jobs[0].account)
        self._streams |= {job.id: queue for job in jobs}
        try:
            self._send(Submit(jobs=tuple(jobs)))
        except BaseException:  # it cannot be encoded: nothing will ever come for these jobs
            for job in jobs:
                del self._streams[job.id]
            raise
        return queue

    def _has_its_share(self, jobs: Sequence[Job], limit: int) -> bool:
        """Whether the account would hold more than an equal part of a full queue: it must not keep the others out of it."""
        held = Counter(stream.account for stream in self._streams.values())
        account = jobs[0].account
        return held[account] + len(jobs) > limit // len(held.keys() | {account})

    async def _leave(self, queue: Stream, unfinished: set[str], used: dict[str, EngineUse] | None) -> None:
        """Abort what has not finished, and hear what it has used if anybody wants to know."""
        unfinished &= self._streams.keys()
        if not unfinished:
            return
        try:
            self.abort(tuple(unfinished))
            async with asyncio.timeout(FAREWELL_S):
                while unfinished and used is not None:
                    item = await queue.get()
                    if isinstance(item, PenstockError):
                        break
                    _take(item, unfinished, used)
        except TimeoutError:
            log.debug("the engine of %s did not say what %d aborted sequences have used", self.model, len(unfinished))
        finally:
            for job_id in unfinished:
                self._streams.pop(job_id, None)

    def _send(self, message: ToEngine) -> None:
        if self._transport is None:
            return
        if self._owing_since_s is None:
            self._owing_since_s = time.monotonic()
        self._transport.send(message)

    # -- what the engine says

    def _receive(self, message: FromEngine) -> None:
        match message:
            case Step():
                self._deliver(message)
            case Loading():
                if self._progress is not None:
                    _tell(self._progress, message)
            case Ready():
                self._settle(message.info)
            case Fatal():
                error = from_failure(message.failure)
                self._lost(error.message, error if isinstance(error, UserError) else None)

    def _deliver(self, step: Step) -> None:
        for output in step.outputs:
            ended = output.finish_reason is not None
            stream = self._streams.pop(output.id, None) if ended else self._streams.get(output.id)
            if stream is not None:
                stream.put(output)
        idle = not self._streams and not step.stats.num_running and not step.stats.num_waiting
        self._owing_since_s = None if idle else time.monotonic()
        self._report(step.stats)

    def _settle(self, outcome: EngineInfo | PenstockError) -> None:
        """The load has succeeded or failed."""
        if self._loaded is None or self._loaded.done():
            return
        if isinstance(outcome, PenstockError):
            self._loaded.set_exception(outcome)
            return
        self._info = outcome
        self._state, self._why = "ready", ""
        self._owing_since_s = None
        self._loaded.set_result(outcome)

    def _lost(self, why: str, error: PenstockError | None = None) -> None:
        """The engine is gone. While loading, that fails the load; later, everything in flight fails and it is restarted."""
        if self._state == "stopped":
            return
        died = EngineDied(f"the engine died: {why}", hint="it is being restarted; try again", retry_after_s=RETRY_AFTER_S)
        if self._loaded is not None and not self._loaded.done():
            loading = EngineDied(f"the engine died while it loaded: {why}", hint="often memory is short: try a smaller kv_bytes")
            self._settle(error or loading)
        elif self._state == "ready":
            log.error("the engine of %s died: %s; it is restarted, %d sequences failed", self.model, why, len(self._streams))
            self._state, self._why = "restarting", why
            self._fail_all(died)
            self._report(EngineStats())
            self._restart = asyncio.get_running_loop().create_task(self._relaunch())

    def _report(self, stats: EngineStats) -> None:
        self.stats = stats
        for callback in self._callbacks:
            _tell(callback, stats)

    def _fail_all(self, error: PenstockError) -> None:
        queues = set(self._streams.values())
        self._streams.clear()
        for queue in queues:
            queue.put(error)

    # -- life and death

    async def _launch(self) -> EngineInfo:
        await self._disconnect()
        if self._state == "stopped":
            raise EngineDied(self._why)
        self._loaded = asyncio.get_running_loop().create_future()
        self._transport = transport = self._connect()
        try:
            await transport.open(self._receive, self._lost)
            if not self._loaded.done():  # else it was stopped meanwhile
                self._send(Configure(model=self.model, spec=self.spec))
            return await self._loaded
        except BaseException:
            self._transport = None
            await transport.close()
            raise

    async def _relaunch(self) -> None:
        """Launch again until it works; each attempt in a row waits longer."""
        for attempt in itertools.count():
            await asyncio.sleep(RESTART_PAUSE_S[min(attempt, len(RESTART_PAUSE_S) - 1)])
            try:
                await self._launch()
                return
            except PenstockError as error:
                self._why = error.message
            except Exception:  # no memory or no file left for a process: that may pass, and giving up would not help
                log.exception("the engine of %s could not be started again", self.model)

    async def _disconnect(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()


def _take(output: Output, unfinished: set[str], used: dict[str, EngineUse] | None) -> None:
    if output.use is not None and used is not None:
        used[output.id] = output.use
    if output.finish_reason is not None:
        unfinished.discard(output.id)


def _tell(callback: Callable[[T], None], value: T) -> None:
    """Call what others have asked to be called; their failure must not cut the engine off from its client."""
    try:
        callback(value)
    except Exception:
        log.exception("a callback of the engine's client failed")


def _transport(spec: EngineSpec) -> Callable[[], Transport]:
    from penstock.engine.transport import ProcessTransport, ThreadTransport

    return ThreadTransport if spec.in_process else ProcessTransport
