"""From slices to tensors. The block table persists across steps: a step copies only the block ids that are new."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penstock.core.errors import Bug
from penstock.engine.kernels.protocol import AttentionInputs
from penstock.engine.messages import MemoryPlan
from penstock.engine.sequence import Sequence, Slice

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(slots=True, frozen=True)
class StepInputs:
    """One step's tensors: token ids [tokens] int64 and what attention needs, slice after slice in the given order."""

    token_ids: Tensor
    attention: AttentionInputs
    last_rows: list[int]  # for each slice, the row of its last token


class BatchBuilder:
    """Keeps one block-table row per running sequence, `[max_num_seqs, max_blocks]` int64."""

    def __init__(self, plan: MemoryPlan, device: torch.device) -> None:
        self._block_size = plan.block_size
        self._device = device
        self._table: Ints = np.zeros((plan.max_num_seqs, -(-plan.max_model_len // plan.block_size)), dtype=np.int64)
        self._rows: dict[Sequence, int] = {}
        self._free = list(range(plan.max_num_seqs))

    def build(self, slices: Seq[Slice]) -> StepInputs:
        rows = np.array([self._row(s.sequence) for s in slices])
        counts = np.array([s.count for s in slices])
        stops = np.array([s.stop for s in slices])
        ends = np.cumsum(counts)
        seq_of = np.repeat(rows, counts)
        positions = np.arange(ends[-1]) + np.repeat(stops - ends, counts)
        slots = self._table[seq_of, positions // self._block_size] * self._block_size + positions % self._block_size
        token_ids = [t for s in slices for t in s.sequence.tokens[s.start : s.stop]]
        width = -(-int(stops.max()) // self._block_size)
        attention = AttentionInputs(
            query_lens=counts.tolist(),
            context_lens=stops.tolist(),
            block_tables=self._tensor(self._table[rows, :width]),
            slots=self._tensor(slots),
            positions=self._tensor(positions),
            block_size=self._block_size,
        )
        return StepInputs(torch.tensor(token_ids, device=self._device), attention, (ends - 1).tolist())

    def _tensor(self, array: Ints) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _row(self, sequence: Sequence) -> int:
        row = self._rows.get(sequence)
        if row is None:
            if not self._free:
                self._collect()
            row = self._rows[sequence] = self._free.pop()
            sequence.num_copied = 0
        new = sequence.blocks[sequence.num_copied :]
        if new:
            self._table[row, sequence.num_copied : len(sequence.blocks)] = [block.id for block in new]
            sequence.num_copied = len(sequence.blocks)
        return row

    def _collect(self) -> None:
        """Take back the rows of sequences that no longer run."""
        gone = [s for s in self._rows if not s.blocks]
        if not gone:
            raise Bug(f"all {len(self._rows)} block-table rows belong to running sequences and another one runs")
        for sequence in gone:
            self._free.append(self._rows.pop(sequence))
