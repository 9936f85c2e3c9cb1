"""Times Penstock's engine in this process: jobs are added, `Engine.step()` is called until they are done.

`format` is what `penstock serve` calls `--weights`, and after a colon, if it is there, `--kv-format`: int4, float, int8:fp32.
"""

from __future__ import annotations

import os
import random
import time

from protocol import Case, answer, case, repetitions

from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.engine import Engine
from penstock.engine.kernels.cpu import library
from penstock.engine.loading import load_engine
from penstock.engine.messages import Job


def main() -> None:
    given = case(__doc__)
    if level := os.environ.get("BENCHMARK_CPU_LEVEL"):
        library.LEVELS = library.LEVELS[: library.LEVELS.index(level) + 1]
    started = time.perf_counter()
    engine = load_engine(given.model, spec(given), lambda *_: None)
    load_s = time.perf_counter() - started
    prefill(engine, 64, given)
    answer(
        {length: [prefill(engine, length, given) for _ in range(given.repeat)] for length in given.prompts},
        {clients: decode(engine, clients, given) for clients in given.clients},
        load_s=load_s,
        weights_bytes=engine.info.plan.weights_bytes,
        kernels=next(iter(library.libraries()), "torch"),
    )


def spec(given: Case) -> EngineSpec:
    weights, _, kv = given.format.partition(":")
    return EngineSpec(
        weights=weights, kv_format=kv or "auto", threads=given.threads, prefix_caching=False, max_model_len=given.max_model_len,
        max_num_seqs=max([32, *given.clients]),
    )  # fmt: skip


def prefill(engine: Engine, length: int, given: Case) -> float:
    engine.add(job(length, 1, given))
    started = time.perf_counter()
    while engine.has_work:
        engine.step()
    return length / (time.perf_counter() - started)


def decode(engine: Engine, clients: int, given: Case) -> list[float]:
    jobs = [job(given.prompt_tokens, given.max_model_len - given.prompt_tokens, given) for _ in range(clients)]
    for one in jobs:
        engine.add(one)
    wanted = engine.stats().prompt_tokens + clients * given.prompt_tokens
    while engine.stats().prompt_tokens < wanted:
        engine.step()
    found = repetitions(given, clients, lambda: full_step(engine, clients))
    for one in jobs:
        engine.abort(one.id)
    return found


def full_step(engine: Engine, clients: int) -> None:
    produced = sum(len(output.token_ids) for output in engine.step())
    if produced != clients:
        raise SystemExit(f"a step brought {produced} tokens for {clients} clients")


def job(prompt_tokens: int, max_tokens: int, given: Case) -> Job:
    prompt = tuple(random.randrange(10, given.vocab_size) for _ in range(prompt_tokens))
    sampling = Sampling(max_tokens=max_tokens, min_tokens=max_tokens, temperature=0)
    return Job(id=f"{random.getrandbits(60):x}", prompt=prompt, sampling=sampling)


main()
