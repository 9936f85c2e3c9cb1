"""One token for each row of logits, in a single native call: what `engine.draw` does in many of torch's."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof

import numpy as np
from torch import Tensor

from penstock.engine.kernels.cpu import structs
from penstock.engine.kernels.cpu.library import Pool, Program

MOST_IDS = 340_000  # the largest vocabulary for which a thread's scratch memory is enough
FEW_LOGITS = 1 << 18  # one thread is done with them before another has woken up


class Drawing:
    """Draws for as long as the same rows run. `alone` is a pool of one thread, for what is not worth waking the others."""

    def __init__(self, pool: Pool, alone: Pool, vocab_size: int, rows: Sequence[structs.DrawnRow]) -> None:
        self._pool = alone if len(rows) * vocab_size <= FEW_LOGITS else pool
        self._rows = (structs.DrawnRow * len(rows))(*rows)
        self._positions = np.zeros(len(rows), dtype=np.int64)
        self._tokens = np.zeros(len(rows), dtype=np.int64)
        self._operation = structs.Draw(size=vocab_size, rows=addressof(self._rows), tokens=self._tokens.ctypes.data)
        self._program = Program([self._operation])
        self._step = structs.Step(tokens=len(rows), positions=self._positions.ctypes.data)

    def draw(self, logits: Tensor, positions: Sequence[int]) -> list[int]:
        """Token ids. logits: [rows, vocab] float32, contiguous; they are overwritten. positions: [rows] of what is drawn."""
        self._positions[:] = positions
        self._operation.logits = logits.data_ptr()
        self._pool.run(self._program, self._step)
        return self._tokens.tolist()
