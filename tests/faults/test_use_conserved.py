"""Whatever clients do, what the attempts used adds up to the time that the engine was busy."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest
from serving import tab

from penstock.core.config import EngineSpec
from penstock.core.types import Delta, ModelCard, Principal, Request, Route, Sampling
from penstock.engine.client import EngineClient
from penstock.files import locate
from penstock.text import load_tokenizer
from penstock.trace import Tab
from penstock.upstream.local import LocalUpstream

ROUTE = Route(upstream="here", model="mini")


async def local() -> tuple[LocalUpstream, EngineClient]:
    """With few places and little memory: most wait, some are preempted."""
    files = locate("penstock-mini")
    spec = EngineSpec(in_process=True, device="cpu", threads=1, kv_bytes=12 * 16 * 6144, max_model_len=128, max_num_seqs=6, watermark=0.0)
    engine = EngineClient(str(files.path), spec)
    await engine.start()
    return LocalUpstream(engine, load_tokenizer(files), None, ModelCard(id="mini", created=0)), engine


async def client(upstream: LocalUpstream, number: int, rng: random.Random) -> Tab:
    """Read to the end, leave after some tokens, or leave before the first; some answers end at a stop string."""
    noted, leaves_after = tab(), rng.choice((None, None, 0, 5))
    sampling = Sampling(
        temperature=0.9, seed=number, max_tokens=rng.randint(4, 48), ignore_eos=True, stop=("e",) if rng.random() < 0.2 else ()
    )
    request = Request(
        id=f"{number}", model="mini", prompt=f"{number} " + "once upon a time " * rng.randint(1, 6), sampling=sampling,
        n=rng.choice((1, 1, 2)), principal=Principal(key_id=f"k{number % 3}"),
    )  # fmt: skip
    pieces = 0
    try:
        async with asyncio.timeout(0.05 if rng.random() < 0.15 else None), aclosing(upstream.stream(request, ROUTE, noted)) as events:
            async for event in events:
                pieces += isinstance(event, Delta)
                if leaves_after is not None and pieces > leaves_after:
                    break
    except TimeoutError:
        pass
    return noted


@pytest.mark.feature("engine time", "continuous batching", "preemption", "disconnect", "n choices")
async def test_every_second_of_a_crowded_engine_is_in_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engine.client.FAREWELL_S", 60.0)  # a busy machine must not decide this
    upstream, engine = await local()
    rng = random.Random(7)
    try:
        tabs = await asyncio.gather(*(client(upstream, number, rng) for number in range(24)))
        uses = [noted.use for noted in tabs if noted.use is not None]
        while engine.stats.num_running or engine.stats.num_waiting:
            await asyncio.sleep(0.01)
        assert len(uses) >= 20
        assert engine.num_in_flight == 0
        assert engine.stats.num_preemptions > 0
        assert all(noted.usage is not None for noted in tabs if noted.use is not None)
        assert sum(use.prefill_s + use.decode_s for use in uses) == pytest.approx(engine.stats.busy_s, rel=1e-6)
        assert sum(use.kv_s for use in uses) == pytest.approx(engine.stats.busy_s, rel=1e-6)
    finally:
        await upstream.close()
