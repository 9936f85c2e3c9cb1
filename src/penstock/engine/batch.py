"""From slices to tensors. Memory and block table persist across steps: a step writes what is new into them, and no more."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from penstock.engine.kernels.protocol import AttentionInputs
from penstock.engine.messages import MemoryPlan
from penstock.engine.sequence import Sequence, Slice

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class StepInputs(Struct, frozen=True):
    """One step's tensors: token ids [tokens] int64 and what attention needs, slice after slice in the given order.

    On a CPU they are views of the builder's memory, which its next `build` overwrites.
    """

    token_ids: Tensor
    attention: AttentionInputs
    last_rows: list[int]  # for each slice, the row of its last token


class BatchBuilder:
    """Row i of the block table, `[max_num_seqs, max_blocks]` int64, is that of the i-th sequence of the last step."""

    def __init__(self, plan: MemoryPlan, device: torch.device) -> None:
        self._block_size = plan.block_size
        self._device = device
        self._on_cpu = device.type == "cpu"
        self._sequences: list[Sequence] = []
        self._counts: list[int] = []
        self._lasts: list[int] = []  # for each sequence, the row of its last token
        self._table_tensor = torch.zeros(plan.max_num_seqs, -(-plan.max_model_len // plan.block_size), dtype=torch.int64)
        self._tokens_tensor = torch.zeros(3, plan.max_step_tokens, dtype=torch.int64)  # ids, positions, slots
        self._lens_tensor = torch.zeros(2, plan.max_num_seqs, dtype=torch.int64)  # of queries, of contexts
        self._tables = self._table_tensor[:0]  # of the last step
        self._table: Ints = self._table_tensor.numpy()
        self._lens: Ints = self._lens_tensor.numpy()
        self._shape(np.zeros(0, dtype=np.int64))

    def build(self, slices: Seq[Slice]) -> StepInputs:
        sequences, counts = [s.sequence for s in slices], [s.count for s in slices]
        if sequences != self._sequences:
            self._arrange(sequences)
        if counts != self._counts:
            self._counts = counts
            self._shape(np.array(counts))
        for row, sequence in enumerate(sequences):
            if sequence.num_copied != len(sequence.blocks):
                self._copy_blocks(row, sequence)
        ids, positions, slots = self._arrays
        ids[:] = [token for s in slices for token in s.sequence.tokens[s.start : s.start + s.count]]
        positions[:] = [place for s in slices for place in range(s.start, s.start + s.count)]
        blocks, offsets = np.divmod(positions, self._block_size)
        np.add(self._table[self._row_of, blocks] * self._block_size, offsets, out=slots)
        contexts = [s.start + s.count for s in slices]
        self._lens[1, : len(contexts)] = contexts
        return self._inputs(contexts)

    def _inputs(self, contexts: list[int]) -> StepInputs:
        width = -(-max(contexts) // self._block_size)
        if self._tables.shape != (len(contexts), width):
            self._tables = self._table_tensor[: len(contexts), :width]
        token_ids, positions, slots = self._tensors if self._on_cpu else [tensor.to(self._device) for tensor in self._tensors]
        attention = AttentionInputs(
            query_lens=self._counts,
            context_lens=contexts,
            block_tables=self._tables if self._on_cpu else self._tables.to(self._device),
            slots=slots,
            positions=positions,
            block_size=self._block_size,
            lens=self._lens_tensor,
        )
        return StepInputs(token_ids, attention, self._lasts)

    def _shape(self, counts: Ints) -> None:
        """What stays the same from step to step while the sequences take as many tokens each, as in decoding."""
        self._tensors = self._tokens_tensor[:, : counts.sum()].unbind()
        self._arrays: list[Ints] = [tensor.numpy() for tensor in self._tensors]
        self._row_of = np.repeat(np.arange(len(counts)), counts)
        self._lasts = (np.cumsum(counts) - 1).tolist()
        self._lens[0, : len(counts)] = counts

    def _arrange(self, sequences: list[Sequence]) -> None:
        """Give each sequence its row; those that were there before keep what is copied."""
        before = {sequence: row for row, sequence in enumerate(self._sequences)}
        stays = [(row, before[sequence]) for row, sequence in enumerate(sequences) if sequence in before]
        for sequence in sequences:
            if sequence not in before:
                sequence.num_copied = 0
        moved = [(new, old) for new, old in stays if new != old]
        if moved:
            new, old = np.array(moved).T
            width = max(sequences[row].num_copied for row, _ in moved)
            self._table[new, :width] = self._table[old, :width]
        self._sequences = sequences

    def _copy_blocks(self, row: int, sequence: Sequence) -> None:
        begin, end = sequence.num_copied, len(sequence.blocks)
        self._table[row, begin:end] = [block.id for block in sequence.blocks[begin:end]]
        sequence.num_copied = end
