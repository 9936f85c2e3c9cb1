"""The engine's time is divided over its jobs: every second that it was busy belongs to somebody, none to two."""

from __future__ import annotations

import pytest

from penstock.core.config import DEFAULT_MODEL, EngineSpec
from penstock.core.types import EngineUse, Sampling
from penstock.engine.engine import Engine
from penstock.engine.loading import load_engine
from penstock.engine.messages import Job


class Clock:
    """Each look at it takes a while, a different one each time: what a step costs is then known and never even."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._looks = 0

    def __call__(self) -> float:
        self._looks += 1
        self.now_s += 0.25 + 0.125 * (self._looks % 7)
        return self.now_s


def engine(**changes: object) -> tuple[Engine, Clock]:
    spec = EngineSpec(**{"max_model_len": 64, "block_size": 4, "threads": 1, "watermark": 0.0, "max_step_tokens": 24, **changes})
    loaded, clock = load_engine(DEFAULT_MODEL, spec, lambda *_: None), Clock()
    loaded._clock = clock
    return loaded, clock


def job(name: str, prompt: int, answer: int) -> Job:
    sampling = Sampling(temperature=0.0, max_tokens=answer, ignore_eos=True)
    return Job(id=name, prompt=tuple(range(200, 200 + prompt)), sampling=sampling, salt=name)


def run(on: Engine, aborts: dict[int, str] = {}) -> dict[str, EngineUse]:  # noqa: B006
    """To the end, with `aborts` before these steps; what each job used, as it was told last."""
    used: dict[str, EngineUse] = {}
    step = 0
    while on.has_work:
        outputs = list(on.step())
        step += 1
        if step in aborts and (farewell := on.abort(aborts[step])) is not None:
            outputs.append(farewell)
        for output in outputs:
            if output.use is not None:
                used[output.id] = output.use
            if output.finish_reason is not None:
                assert output.use is not None
    return used


def total(used: dict[str, EngineUse]) -> tuple[float, float]:
    return sum(use.prefill_s + use.decode_s for use in used.values()), sum(use.kv_s for use in used.values())


def test_every_busy_second_is_somebody_s() -> None:
    on, _ = engine()
    for number in range(5):
        on.add(job(f"{number}", 10 + 6 * number, 3 + 5 * number))
    used = run(on)
    assert total(used) == pytest.approx((on.stats().busy_s,) * 2, rel=1e-9)
    assert all(use.prefill_s > 0 and use.decode_s > 0 and use.kv_block_s >= use.kv_s for use in used.values())


def test_also_of_those_that_were_aborted_or_preempted() -> None:
    on, _ = engine(kv_bytes=24 * 4 * 6144, max_num_seqs=6)
    for number in range(6):
        on.add(job(f"{number}", 10 + 3 * number, 20))
    used = run(on, aborts={3: "1", 8: "4", 9: "no such job"})
    assert set(used) == {f"{number}" for number in range(6)}
    assert on.stats().num_preemptions > 0
    assert total(used) == pytest.approx((on.stats().busy_s,) * 2, rel=1e-9)


def test_who_waited_only_took_nothing() -> None:
    on, _ = engine(max_num_seqs=1)
    on.add(job("runs", 8, 4))
    on.add(job("waits", 8, 4))
    on.step()
    farewell = on.abort("waits")
    assert farewell is not None
    assert farewell.use == EngineUse()


def test_an_idle_engine_is_not_busy_after_an_abort() -> None:
    on, clock = engine()
    on.add(job("left", 8, 4))
    on.step()
    on.abort("left")
    busy_s = on.stats().busy_s
    clock.now_s += 1000.0
    on.add(job("next", 8, 1))
    on.step()
    assert on.stats().busy_s - busy_s < 100


def test_a_long_prompt_pays_for_its_tokens_and_its_blocks() -> None:
    on, _ = engine(max_step_tokens=64)
    on.add(job("long", 40, 4))
    on.add(job("short", 4, 4))
    used = run(on)
    assert used["long"].prefill_s == pytest.approx(10 * used["short"].prefill_s)
    assert used["long"].decode_s == pytest.approx(used["short"].decode_s)
    assert used["long"].kv_s > 5 * used["short"].kv_s
