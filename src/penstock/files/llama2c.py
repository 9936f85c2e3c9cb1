"""The llama2.c container (legacy version 0): seven integers, then all weights as float32 in a fixed order.

    dim │ hidden_dim │ layers │ heads │ kv_heads │ vocab │ seq_len │ embedding │ attention norms of all layers │ wq … │ …

A negative vocabulary size says that the output layer is not the embedding. (Format: https://github.com/karpathy/llama2.c,
export.py.)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path

from msgspec import Struct

from penstock.core.errors import LoadError
from penstock.files.mapped import mapped

_HEADER = struct.Struct("<7i")
_VERSIONED_MAGIC = 0x616B3432  # later, versioned exports begin with it


class Llama2cHeader(Struct, frozen=True):
    """Sizes of the model, in elements."""

    dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    seq_len: int
    shared_classifier: bool

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensors in the order of the file, under their names in llama2.c."""
        layers, dim, kv_dim = self.num_layers, self.dim, self.num_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "token_embedding_table": (self.vocab_size, dim),
            "rms_att_weight": (layers, dim),
            "wq": (layers, dim, dim),
            "wk": (layers, kv_dim, dim),
            "wv": (layers, kv_dim, dim),
            "wo": (layers, dim, dim),
            "rms_ffn_weight": (layers, dim),
            "w1": (layers, self.hidden_dim, dim),
            "w2": (layers, dim, self.hidden_dim),
            "w3": (layers, self.hidden_dim, dim),
            "rms_final_weight": (dim,),
            "freq_cis": (2, self.seq_len, self.head_dim // 2),  # no longer used by llama2.c itself
        }
        return shapes if self.shared_classifier else shapes | {"wcls": (self.vocab_size, dim)}


class Llama2cFile:
    """One opened file, memory-mapped. Raises LoadError unless its length is exactly what its header asks for."""

    def __init__(self, path: Path) -> None:
        self._map = mapped(path)
        self.header = _header(path, bytes(self._map[: _HEADER.size]))
        self._starts = _starts(self.header.shapes)
        expected = _HEADER.size + 4 * sum(map(prod, self.header.shapes.values()))
        if expected != len(self._map):
            raise _unknown(path, f"its header asks for {expected} bytes, it has {len(self._map)}")

    def data(self, name: str) -> memoryview:
        """The float32 numbers of a tensor of `header.shapes` as bytes, not copied."""
        start = self._starts[name]
        return memoryview(self._map)[start : start + 4 * prod(self.header.shapes[name])]


def _header(path: Path, head: bytes) -> Llama2cHeader:
    if len(head) < _HEADER.size:
        raise _unknown(path, f"it has {len(head)} bytes")
    dim, hidden_dim, layers, heads, kv_heads, vocab, seq_len = _HEADER.unpack(head)
    if dim == _VERSIONED_MAGIC:
        raise _unknown(path, f"it is of version {hidden_dim}, only the legacy version 0 is read")
    sizes = (dim, hidden_dim, layers, heads, kv_heads, abs(vocab), seq_len)
    if min(sizes) < 1 or dim % (2 * heads) or heads % kv_heads:
        raise _unknown(path, f"its header has impossible sizes {sizes}")
    return Llama2cHeader(*sizes, shared_classifier=vocab > 0)


def _starts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The byte at which each tensor begins."""
    starts, position = {}, _HEADER.size
    for name, shape in shapes.items():
        starts[name] = position
        position += 4 * prod(shape)
    return starts


def _unknown(path: Path, what: str) -> LoadError:
    return LoadError(f"{path} is not a llama2.c model that can be read: {what}", hint="export it with llama2.c's export.py --version 0")
