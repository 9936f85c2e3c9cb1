"""Times Penstock's engine in this process: jobs are added, `Engine.step()` is called until they are done."""

from __future__ import annotations

import os
import random
import time

from protocol import Case, answer, case, repetitions

from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.engine import Engine
from penstock.engine.loading import load_engine
from penstock.engine.messages import Job


def main() -> None:
    given = case(__doc__)
    kv = os.environ.get("PENSTOCK_BENCH_KV", "auto")
    started = time.perf_counter()
    engine = load_engine(given.model, spec(given, kv), lambda *_: None)
    load_s = time.perf_counter() - started
    prefill(engine, 64, given)
    answer(
        {length: [prefill(engine, length, given) for _ in range(given.repeat)] for length in given.prompts},
        {clients: decode(engine, clients, given) for clients in given.clients},
        load_s,
    )


def spec(given: Case, kv: str) -> EngineSpec:
    """Weights in `format`; memory for all clients at once."""
    chosen = {} if given.format == "float" else {"weights": given.format}
    if kv != "auto":
        chosen["kv_format"] = kv
    return EngineSpec(
        dtype="float32", threads=given.threads, prefix_caching=False, max_model_len=given.max_model_len,
        max_num_seqs=max(given.clients, default=1), **chosen,
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
    prompts = clients * given.prompt_tokens
    before = engine.stats().prompt_tokens
    while engine.stats().prompt_tokens - before < prompts:
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
