"""The engine's client over a scripted transport: whatever the engine does, every submission ends and readiness is honest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from plans import plan

from penstock.core.config import EngineSpec
from penstock.core.errors import EngineDied, NotReady, Overloaded
from penstock.core.types import EngineUse, Sampling
from penstock.engine.client import EngineClient
from penstock.engine.messages import (
    Abort,
    Configure,
    EngineInfo,
    EngineStats,
    FromEngine,
    Job,
    Loading,
    Output,
    Ready,
    Step,
    Submit,
    ToEngine,
)

INFO = EngineInfo(model="m", architecture="a", num_parameters=1, vocab_size=9, eos_token_ids=(), plan=plan(max_num_seqs=4))
JOB = Job(id="job", prompt=(1,), sampling=Sampling(max_tokens=2))
IDLE = Step(outputs=(), stats=EngineStats())


class Scripted:
    """A transport whose engine says what the test makes it say."""

    opened = 0
    fails_to_open = 0
    loads = True

    def __init__(self) -> None:
        self.sent: list[ToEngine] = []

    async def open(self, receive: Callable[[FromEngine], None], lost: Callable[[str], None]) -> None:
        type(self).opened += 1
        if self.fails_to_open:
            type(self).fails_to_open -= 1
            raise OSError("too many open files")
        self.receive, self.lost = receive, lost

    def send(self, message: ToEngine) -> None:
        self.sent.append(message)
        if isinstance(message, Configure) and self.loads:
            self.receive(Ready(info=INFO))

    async def close(self) -> None:
        pass


class Bench:
    """A client and its current transport."""

    def __init__(self, **spec: object) -> None:
        Scripted.opened = Scripted.fails_to_open = 0
        Scripted.loads = True
        self.transports: list[Scripted] = []
        self.client = EngineClient("m", EngineSpec(**spec), self.connect)

    def connect(self) -> Scripted:
        self.transports.append(Scripted())
        return self.transports[-1]

    @property
    def engine(self) -> Scripted:
        return self.transports[-1]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_dead_engine_fails_its_jobs_and_is_started_again() -> None:
    bench = Bench()
    await bench.client.start()
    outputs = bench.client.submit([JOB])
    first = asyncio.ensure_future(anext(outputs))
    await asyncio.sleep(0)
    bench.engine.lost("it was killed")
    with pytest.raises(EngineDied, match="it was killed"):
        await first
    assert bench.client.health().state == "restarting"
    with pytest.raises(NotReady):
        await anext(bench.client.submit([JOB]))
    await until(lambda: bench.client.health().ready)
    assert Scripted.opened == 2


async def test_it_goes_on_trying_when_no_process_can_be_started() -> None:
    bench = Bench()
    await bench.client.start()
    Scripted.fails_to_open = 2
    bench.engine.lost("it was killed")
    await until(lambda: bench.client.health().ready)
    assert Scripted.opened == 4
    await bench.client.close()


async def test_closing_while_it_starts_ends_the_start() -> None:
    bench = Bench()
    Scripted.loads = False
    starting = asyncio.ensure_future(bench.client.start())
    await asyncio.sleep(0)
    await bench.client.close()
    with pytest.raises(EngineDied, match="stopped"):
        await asyncio.wait_for(starting, 5)


async def test_a_failing_callback_does_not_cut_the_engine_off() -> None:
    bench = Bench()

    def broken(_: object) -> None:
        raise BrokenPipeError

    bench.client.on_step(broken)
    await bench.client.start(broken)
    bench.engine.receive(Loading(stage="weights", done=1, total=2))
    outputs = bench.client.submit([JOB])
    first = asyncio.ensure_future(anext(outputs))
    await asyncio.sleep(0)
    bench.engine.receive(Step(outputs=(Output(id="job", token_ids=(5,), finish_reason="stop"),), stats=EngineStats()))
    assert (await first).token_ids == (5,)


async def test_a_hung_engine_stays_unready_when_its_clients_leave_and_new_ones_come() -> None:
    bench = Bench(step_deadline_s=0.1)
    await bench.client.start()

    async def ask_and_leave() -> None:
        outputs = bench.client.submit([JOB])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(outputs), 0.15)
        await outputs.aclose()

    await ask_and_leave()
    assert bench.client.health().state == "stalled"
    outputs = bench.client.submit([JOB])
    waiting = asyncio.ensure_future(anext(outputs))
    await asyncio.sleep(0)
    assert bench.client.health().state == "stalled"
    bench.engine.receive(Step(outputs=(Output(id="job", finish_reason="stop"),), stats=EngineStats()))
    await waiting
    assert bench.client.health().ready


async def test_an_idle_engine_is_ready_for_ever() -> None:
    bench = Bench(step_deadline_s=0.05)
    await bench.client.start()
    outputs = bench.client.submit([JOB])
    waiting = asyncio.ensure_future(anext(outputs))
    await asyncio.sleep(0)
    assert isinstance(bench.engine.sent[-1], Submit)
    bench.engine.receive(Step(outputs=(Output(id="job", finish_reason="stop"),), stats=EngineStats(num_running=0)))
    bench.engine.receive(IDLE)
    await waiting
    await asyncio.sleep(0.1)
    assert bench.client.health().ready


USE = EngineUse(prefill_s=1.0, decode_s=2.0, kv_s=3.0)


async def left_early(bench: Bench, used: dict[str, EngineUse]) -> asyncio.Task[None]:
    """A client that reads one output and leaves; the task ends when the generator has closed."""
    outputs = bench.client.submit([JOB], used)
    first = asyncio.ensure_future(anext(outputs))
    await asyncio.sleep(0)
    bench.engine.receive(Step(outputs=(Output(id="job", token_ids=(5,), use=EngineUse(prefill_s=0.5)),), stats=EngineStats(num_running=1)))
    await first
    closing = asyncio.ensure_future(outputs.aclose())
    await until(lambda: isinstance(bench.engine.sent[-1], Abort))
    return closing


async def test_who_leaves_still_hears_what_was_used() -> None:
    bench, used = Bench(), dict[str, EngineUse]()
    await bench.client.start()
    closing = await left_early(bench, used)
    assert not closing.done()
    bench.engine.receive(Step(outputs=(Output(id="job", finish_reason="abort", use=USE),), stats=EngineStats()))
    await closing
    assert used == {"job": USE}
    assert bench.client.num_in_flight == 0


@pytest.mark.parametrize("dies", [True, False])
async def test_an_engine_that_says_nothing_more_keeps_nobody(monkeypatch: pytest.MonkeyPatch, dies: bool) -> None:
    """What it said before stays."""
    monkeypatch.setattr("penstock.engine.client.FAREWELL_S", 60.0 if dies else 0.02)
    bench, used = Bench(), dict[str, EngineUse]()
    await bench.client.start()
    closing = await left_early(bench, used)
    if dies:
        bench.engine.lost("it was killed")
    await asyncio.wait_for(closing, 5)
    assert used == {"job": EngineUse(prefill_s=0.5)}
    assert bench.client.num_in_flight == 0
    await bench.client.close()


async def test_an_account_that_fills_the_queue_keeps_nobody_out() -> None:
    """The limit is 10: as long as only one account is there it may have all of it, then an equal part."""
    bench = Bench(max_queue=6)
    await bench.client.start()
    waiting = []

    async def enter(account: str) -> None:
        outputs = bench.client.submit([Job(id=f"{len(waiting)}", prompt=(1,), sampling=Sampling(max_tokens=2), account=account)])
        task = asyncio.ensure_future(anext(outputs))
        await asyncio.sleep(0)
        if task.done():
            await task
        waiting.append((task, outputs))

    for _ in range(10):
        await enter("greedy")
    with pytest.raises(Overloaded):
        await enter("greedy")
    for _ in range(5):
        await enter("modest")
    with pytest.raises(Overloaded):
        await enter("modest")
    assert bench.client.num_in_flight == 15
    for task, _ in waiting:
        task.cancel()
    await asyncio.gather(*(task for task, _ in waiting), return_exceptions=True)
    await bench.client.close()
