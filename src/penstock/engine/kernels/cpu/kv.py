"""Keys and values in blocks as the native kernels store them (`source/kv.h`): the same bytes for every build of the library.

    layout = KVLayout("int8", kv_heads=2, head_dim=64, block_size=16)
    keys, values = layout.allocate(num_blocks), layout.allocate(num_blocks)      of one layer
    layout.struct(keys, values)                                                  what operations take

Bytes per token and KV head, for its keys and again for its values: fp32 4 * head_dim, bf16 2 * head_dim, int8 head_dim + 4, int4
head_dim / 2 + 4, with head_dim rounded up to 16 (int4: 32). int8 and int4 hold x = minimum + scale * code, with a bfloat16
minimum and scale for each token and head (after KIVI's asymmetric codes, arXiv:2402.02750).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.core.errors import LoadError
from penstock.engine.kernels.cpu.structs import KV, KVNumbers

NUMBERS = {"fp32": KVNumbers.FLOAT32, "bf16": KVNumbers.BFLOAT16, "int8": KVNumbers.INT8, "int4": KVNumbers.INT4}
BITS = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4}
GROUP = 16  # tokens that lie interleaved: block sizes are a multiple of it
HEAD_DIM_MULTIPLE, LARGEST_HEAD_DIM = 8, 256


@dataclass(frozen=True, slots=True)
class KVLayout:
    """One layer's cache: `format` is a key of `NUMBERS`. LoadError where the kernels have no layout for it (see `obstacle`)."""

    format: str
    kv_heads: int
    head_dim: int
    block_size: int

    def __post_init__(self) -> None:
        if problem := obstacle(self.head_dim, self.block_size):
            raise LoadError(f"the native kernels cannot store keys and values: {problem}")
        if self.format not in NUMBERS:
            raise LoadError(f"no format of keys and values is called {self.format!r}", hint=f"use one of {', '.join(NUMBERS)}")

    @property
    def block_bytes(self) -> int:
        """Of the keys of one block; its values take as many."""
        bits = BITS[self.format]
        multiple = 32 if bits == 4 else 16
        entries = -(-self.head_dim // multiple) * multiple
        scales = 4 if bits < 16 else 0
        return self.block_size * self.kv_heads * (entries * bits // 8 + scales)

    def allocate(self, num_blocks: int) -> Tensor:
        """-> zeros [num_blocks, block_bytes] uint8; the memory is taken as it is first written."""
        return torch.zeros(num_blocks, self.block_bytes, dtype=torch.uint8)

    def struct(self, keys: Tensor, values: Tensor) -> KV:
        """keys, values: as `allocate` made them; the caller keeps them alive."""
        return KV(
            format=NUMBERS[self.format], kv_heads=self.kv_heads, head_dim=self.head_dim, block_size=self.block_size,
            keys=keys.data_ptr(), values=values.data_ptr(),
        )  # fmt: skip


def obstacle(head_dim: int, block_size: int) -> str | None:
    """Why the kernels have no layout for these; None when they have."""
    if head_dim % HEAD_DIM_MULTIPLE or not 0 < head_dim <= LARGEST_HEAD_DIM:
        return f"a head of {head_dim} entries is no multiple of {HEAD_DIM_MULTIPLE} up to {LARGEST_HEAD_DIM}"
    if block_size % GROUP or block_size <= 0:
        return f"a block of {block_size} tokens is no multiple of {GROUP}"
    return None
