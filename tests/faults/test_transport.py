"""The engine's process and its client, without a gateway between: no message is missed, and no engine outlives its client."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import psutil

from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.client import EngineClient
from penstock.engine.messages import Job

SPEC = EngineSpec(max_model_len=512, kv_bytes=2**24, threads=1)
BUSY_CLIENT = """
import asyncio
from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.client import EngineClient
from penstock.engine.messages import Job

async def main():
    client = EngineClient("penstock-mini", EngineSpec(max_model_len=512, kv_bytes=2**24, threads=1))
    await client.start()
    sampling = Sampling(max_tokens=480, ignore_eos=True)
    for number in range(10**9):
        async for output in client.submit([Job(id=f"{number}-{i}", prompt=(5, 6, 7), sampling=sampling) for i in range(4)]):
            print("running", flush=True)

asyncio.run(main())
"""


async def test_no_answer_is_missed_however_busy_the_loop_is() -> None:
    """An answer that arrives while the loop is busy, just before the loop sends, must still wake its reader."""
    client = EngineClient("penstock-mini", SPEC)
    await client.start()

    async def ask(name: str) -> None:
        async for _ in client.submit([Job(id=name, prompt=(5, 6, 7), sampling=Sampling(max_tokens=1))]):
            pass

    for number in range(400):
        first = asyncio.create_task(ask(f"{number} first"))
        await asyncio.sleep(0)
        busy_until = time.perf_counter() + 0.0005 * (1 + number % 16)
        while time.perf_counter() < busy_until:
            pass
        await asyncio.wait_for(asyncio.gather(first, ask(f"{number} second")), 10)
    await client.close()


def test_an_engine_at_work_ends_when_its_client_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY_CLIENT], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"running\n"
        engines = psutil.Process(client.pid).children(recursive=True)
        client.kill()
    assert engines
    _gone, alive = psutil.wait_procs(engines, timeout=15)
    for engine in alive:
        engine.kill()
    assert not alive, "the engine outlived its client"
