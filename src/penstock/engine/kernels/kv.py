"""Where keys and values live: paged, one pair of tensors per layer, owned by the engine and written by `Kernels.store_kv`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.engine.models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers.

        keys[layer], values[layer]:  [num_blocks * block_size, kv_heads, head_dim]
        slot of a token            = block id * block_size + offset in the block

    Every entry is finite at all times: what lies beyond a sequence's context is read, multiplied by zero and so ignored.
    """

    keys: list[Tensor]
    values: list[Tensor]
    block_size: int

    @staticmethod
    def allocate(config: ModelConfig, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device | str) -> KVCache:
        """Zeroed room for `num_blocks * block_size` tokens; on a CPU the memory is taken as it is first written."""
        shape = (num_blocks * block_size, config.num_kv_heads, config.head_dim)
        keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]
        values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]
        return KVCache(keys, values, block_size)
