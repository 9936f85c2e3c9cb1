"""A memory plan for tests that plan no memory."""

from __future__ import annotations

from msgspec.structs import replace

from penstock.engine.messages import MemoryPlan

_PLAN = MemoryPlan(
    device="cpu",
    dtype="float32",
    available_bytes=0,
    weights_bytes=0,
    activation_bytes=0,
    kv_bytes=0,
    block_size=4,
    num_blocks=64,
    max_model_len=128,
    max_step_tokens=16,
    max_num_seqs=8,
)


def plan(**changes: int) -> MemoryPlan:
    """64 blocks of 4 tokens, 16 tokens a step, 8 sequences of up to 128 tokens, but for `changes`."""
    return replace(_PLAN, **changes)
