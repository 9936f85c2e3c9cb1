"""What the engine asks of a loaded model, however it calculates."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from penstock.engine.kernels.cpu.library import Pool
from penstock.engine.kernels.kv import KVCache
from penstock.engine.kernels.protocol import AttentionInputs
from penstock.engine.models.config import ModelConfig


class Model(Protocol):
    """Holds weights, and no state of any sequence: that is the `KVCache`, which the engine owns."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def pool(self) -> Pool | None:
        """The threads of native kernels, for whoever works between the calls. None: it has none of its own."""
        ...

    def allocate_kv(self, num_blocks: int, block_size: int) -> KVCache:
        """Zeroed room for `num_blocks * block_size` tokens; on a CPU the memory is taken as it is first written."""
        ...

    def forward(self, token_ids: Tensor, inputs: AttentionInputs, kv: KVCache) -> Tensor:
        """token_ids [tokens] int64 -> hidden states [tokens, hidden] for `logits`. Writes the tokens' keys and values to `kv`.

        What is returned may be overwritten by the next call.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden], as `forward` gave them -> [rows, vocab] float32, which may be overwritten by the next call."""
        ...
