"""Sampled text with a seed is the same alone and in a crowd, with chunks, prefix hits and preemption all happening meanwhile."""

from __future__ import annotations

import pytest
import torch

from penstock.core.config import DEFAULT_MODEL, EngineSpec
from penstock.core.types import Sampling
from penstock.engine.engine import Engine
from penstock.engine.loading import load_engine
from penstock.engine.messages import Job
from penstock.engine.models.load import read_config
from penstock.files import locate

NUM_OUTPUT = 16
WAYS = [
    Sampling(temperature=1.3),
    Sampling(temperature=1.5, top_k=30),
    Sampling(temperature=1.5, top_p=0.9, logprobs=2),
    Sampling(temperature=1.2, min_p=0.02, repetition_penalty=1.3),
    Sampling(temperature=1.0, frequency_penalty=0.7, presence_penalty=0.3, min_tokens=10),
    Sampling(temperature=0.0, repetition_penalty=1.1),
    Sampling(temperature=2.0, allowed_token_ids=tuple(range(300, 400))),
]


def jobs() -> list[Job]:
    prompt = tuple(range(200, 240))
    return [
        Job(
            id=str(number),
            prompt=prompt[: 7 + 4 * number],
            sampling=Sampling(
                **{field: getattr(way, field) for field in way.__struct_fields__}
                | {"seed": number, "max_tokens": NUM_OUTPUT, "ignore_eos": True}
            ),
            bad_token_ids=((5,), (6, 7)),
        )
        for number, way in enumerate(WAYS)
    ]


def engine(**changes: int) -> Engine:
    return load_engine(DEFAULT_MODEL, EngineSpec(max_model_len=64, block_size=4, threads=1, watermark=0.0, **changes), lambda *_: None)


def generated(on: Engine, asked: list[Job]) -> dict[str, list[int]]:
    produced: dict[str, list[int]] = {job.id: [] for job in asked}
    waiting = list(asked)
    while waiting or on.has_work:
        if waiting:
            on.add(waiting.pop(0))
        for output in on.step():
            produced[output.id] += output.token_ids
        on.audit()
    return produced


@pytest.mark.feature(
    "sampling", "seed", "logprobs", "min tokens", "bad words", "allowed tokens", "continuous batching", "chunked prefill", "prefix cache",
    "preemption",
)  # fmt: skip
def test_a_crowd_changes_no_sampled_text() -> None:
    asked = jobs()
    quiet = engine()
    alone = {job.id: generated(quiet, [job])[job.id] for job in asked}
    block_bytes = 4 * read_config(locate(DEFAULT_MODEL)).kv_bytes_per_token(torch.float32)
    crowded = engine(kv_bytes=24 * block_bytes, max_step_tokens=13, max_num_seqs=6)
    assert generated(crowded, asked[::-1]) == alone
    assert crowded.scheduler.counters.preemptions > 0
    assert crowded.scheduler.counters.prefix_hits > 0
    assert len({tuple(tokens) for tokens in alone.values()}) == len(WAYS)
