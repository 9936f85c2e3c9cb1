"""A step's tensors say where each token lives, whoever came, left, moved or lost its blocks since the step before."""

from __future__ import annotations

import random

import pytest
import torch

from penstock.core.types import Sampling
from penstock.engine.batch import BatchBuilder, StepInputs
from penstock.engine.blocks import Block
from penstock.engine.messages import Job, MemoryPlan
from penstock.engine.sequence import Sequence, Slice

SIZE = 4
PLAN = MemoryPlan(
    device="cpu", dtype="float32", available_bytes=0, weights_bytes=0, activation_bytes=0, kv_bytes=0,
    block_size=SIZE, num_blocks=1000, max_model_len=64, max_step_tokens=100, max_num_seqs=6,
)  # fmt: skip


def sequence(name: str, rng: random.Random) -> Sequence:
    return Sequence(Job(id=name, prompt=tuple(rng.choices(range(100), k=rng.randrange(1, 20))), sampling=Sampling()), 0.0, 0.0, 0)


def check(inputs: StepInputs, slices: list[Slice]) -> None:
    positions = [place for s in slices for place in range(s.start, s.stop)]
    owners = [s.sequence for s in slices for _ in range(s.count)]
    slots = [owner.blocks[place // SIZE].id * SIZE + place % SIZE for owner, place in zip(owners, positions, strict=True)]
    attention = inputs.attention
    assert inputs.token_ids.tolist() == [owner.tokens[place] for owner, place in zip(owners, positions, strict=True)]
    assert attention.positions.tolist() == positions
    assert attention.slots.tolist() == slots
    assert attention.query_lens == [s.count for s in slices]
    assert attention.context_lens == [s.stop for s in slices]
    assert attention.lens is not None
    assert attention.lens[:, : len(slices)].tolist() == [attention.query_lens, attention.context_lens]
    for row, s in enumerate(slices):
        ids = [block.id for block in s.sequence.blocks[: -(-s.stop // SIZE)]]
        assert attention.block_tables[row, : len(ids)].tolist() == ids
    ends = torch.tensor(attention.query_lens).cumsum(0) - 1
    assert inputs.last_rows == ends.tolist()


def plan(running: list[Sequence], free: list[int], rng: random.Random) -> list[Slice]:
    """Some tokens of most sequences, all of which get blocks."""
    slices = []
    for one in running:
        one.blocks += [Block(free.pop()) for _ in range(-(-len(one.tokens) // SIZE) - len(one.blocks))]
        left = len(one.tokens) - one.num_computed
        if rng.random() < 0.9:
            slices.append(Slice(one, one.num_computed, rng.randrange(1, left + 1) if rng.random() < 0.5 else left))
    return slices


def commit(slices: list[Slice], rng: random.Random) -> None:
    for piece in slices:
        piece.sequence.num_computed = piece.stop
        if piece.reaches_end:
            piece.sequence.tokens.append(rng.randrange(100))


def disturb(running: list[Sequence], free: list[int], rng: random.Random) -> None:
    for one in list(running):
        fate = rng.random()
        if fate < 0.05 or len(one.tokens) >= 60:  # ended
            running.remove(one)
            one.blocks = []
        elif fate < 0.1:  # preempted
            one.blocks, one.num_computed, one.num_copied = [], 0, 0
        elif fate < 0.15 and one.num_computed >= SIZE:  # a full block turned out to be cached already
            one.blocks[0] = Block(free.pop())
            one.num_copied = 0


@pytest.mark.feature("continuous batching", "chunked prefill", "preemption")
def test_every_token_finds_its_place_whatever_happened_since_the_last_step() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        builder, running, free = BatchBuilder(PLAN, torch.device("cpu")), [], list(range(1000))
        for step in range(60):
            while len(running) < 6 and rng.random() < 0.3:
                running.insert(rng.randrange(len(running) + 1), sequence(f"{seed} {step} {len(running)}", rng))
            slices = plan(running, free, rng)
            if slices:
                check(builder.build(slices), slices)
            commit(slices, rng)
            disturb(running, free, rng)
