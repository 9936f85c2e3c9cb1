"""Greedy text of real weights through the whole engine, token for token, whatever else happens meanwhile.

The expected tokens come with the weights (`golden_greedy.json`); this project did not produce them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.engine import Engine
from penstock.engine.loading import load_engine
from penstock.engine.messages import Job, Output
from penstock.engine.models.load import read_config
from penstock.files.locate import locate

WEIGHTS = {"stories260K": "stories260K/stories260K.bin", "tinystories-656k": "tinystories-656k"}


@dataclass(frozen=True)
class Golden:
    path: str
    tokens: list[int]

    def job(self, name: str, num_prompt: int, *, salt: str = "") -> Job:
        sampling = Sampling(temperature=0.0, max_tokens=len(self.tokens) - num_prompt)
        return Job(id=name, prompt=tuple(self.tokens[:num_prompt]), sampling=sampling, salt=salt)

    def load(self, **changes: object) -> Engine:
        return load_engine(self.path, EngineSpec(**{"max_model_len": 256, **changes}), lambda *_: None)


@pytest.fixture(params=WEIGHTS)
def golden(request: pytest.FixtureRequest, shared_data: Path) -> Golden:
    folder = shared_data / "weights"
    tokens = json.loads((folder / request.param / "golden_greedy.json").read_text())["ids"]
    return Golden(str(folder / WEIGHTS[request.param]), tokens)


def drive(engine: Engine, jobs: dict[int, list[Job]]) -> dict[str, list[Output]]:
    """Run to the end, adding `jobs[step]` before each step; what came of each job."""
    produced: dict[str, list[Output]] = {job.id: [] for batch in jobs.values() for job in batch}
    step = 0
    while engine.has_work or step <= max(jobs):
        for job in jobs.get(step, []):
            engine.add(job)
        for output in engine.step() if engine.has_work else ():
            produced[output.id].append(output)
        engine.audit()
        step += 1
    return produced


def tokens(outputs: list[Output]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


@pytest.mark.feature("greedy")
def test_alone(golden: Golden) -> None:
    produced = drive(golden.load(), {0: [golden.job("a", 1)]})
    assert tokens(produced["a"]) == golden.tokens[1:]


@pytest.mark.feature("greedy", "continuous batching", "chunked prefill", "prefix cache", "preemption")
def test_with_chunks_prefix_hits_preemption_and_batch_mates(golden: Golden) -> None:
    """Few blocks and a small step budget: prompts go in odd chunks, sequences are preempted and resumed from the cache.

    All answers are the same text, so tenants keep them from sharing all of their blocks.
    """
    block_bytes = 4 * read_config(locate(golden.path)).kv_bytes_per_token(torch.float32)
    engine = golden.load(max_model_len=160, kv_bytes=60 * block_bytes, max_step_tokens=24, max_num_seqs=8, block_size=4, watermark=0.0)
    cuts = [1, 7, 30, 30, 45, 60, 60]
    produced = drive(engine, {3 * index: [golden.job(f"{index}", cut, salt=f"tenant {cut}")] for index, cut in enumerate(cuts)})
    for index, cut in enumerate(cuts):
        assert tokens(produced[f"{index}"]) == golden.tokens[cut:]
    assert engine.scheduler.counters.preemptions > 0
    assert engine.scheduler.counters.prefix_hits > 0


@pytest.mark.feature("greedy", "prefix cache")
def test_a_second_request_computes_only_what_is_new_and_never_across_tenants(golden: Golden) -> None:
    engine = golden.load(block_size=4)
    drive(engine, {0: [golden.job("first", 60)]})
    again = drive(engine, {0: [golden.job("again", 60), golden.job("foreign", 60, salt="another tenant")]})
    assert again["again"][0].num_cached_tokens == 56
    assert again["foreign"][0].num_cached_tokens == 0
    assert tokens(again["again"]) == tokens(again["foreign"]) == golden.tokens[60:]
