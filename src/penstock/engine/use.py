"""What each sequence takes of the engine. Every step's time is divided over its sequences, and nothing is left over.

It is divided twice: over the tokens computed, and over the KV blocks held, so that whoever prices it can weigh the one
against the other. A block that several sequences share counts for each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from penstock.core.types import EngineUse
from penstock.engine.sequence import Sequence, Slice

Holding = tuple[Sequence, int]  # who holds how many blocks


def holdings(running: Iterable[Sequence]) -> list[Holding]:
    """The blocks held as of now."""
    return [(sequence, len(sequence.blocks)) for sequence in running]


def divide(step_s: float, slices: Collection[Slice], held: Collection[Holding]) -> None:
    """Add a step of `step_s` seconds to the sequences that took part. What a preempted one computes again counts, too."""
    token_s = step_s / sum([piece.count for piece in slices])
    for piece in slices:
        sequence = piece.sequence
        if piece.start < len(sequence.job.prompt):
            sequence.prefill_s += token_s * piece.count
        else:
            sequence.decode_s += token_s * piece.count
    block_s = step_s / sum([count for _, count in held])
    for sequence, count in held:
        sequence.kv_s += block_s * count
        sequence.kv_block_s += step_s * count


def use_of(sequence: Sequence) -> EngineUse:
    """What `sequence` has taken so far."""
    return EngineUse(prefill_s=sequence.prefill_s, decode_s=sequence.decode_s, kv_s=sequence.kv_s, kv_block_s=sequence.kv_block_s)
