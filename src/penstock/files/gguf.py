"""The GGUF container (versions 2 and 3): metadata, and tensors as they lie in the file.

    magic │ version │ counts │ metadata: key, type, value … │ tensor infos: name, shape, type, offset … │ padding │ data

The file is memory-mapped, so only what is looked at is read. Nothing in it is trusted: every length is compared with
what is left of the file before anything of that size is made. (Format: https://github.com/ggml-org/ggml, docs/gguf.md.)
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from penstock.core.errors import LoadError
from penstock.files.mapped import mapped

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMS = 4
_MAX_DEPTH = 4  # of arrays in arrays
_SCALARS: Mapping[int, str] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
)  # fmt: skip
_STRING = 8
_ARRAY = 9


class TensorType(Struct, frozen=True):
    """How numbers are stored: in blocks of `block_size` numbers, each `block_bytes` long."""

    name: str
    block_size: int
    block_bytes: int


_TYPES: Mapping[int, TensorType] = MappingProxyType(
    {
        0: TensorType("F32", 1, 4),
        1: TensorType("F16", 1, 2),
        2: TensorType("Q4_0", 32, 18),
        3: TensorType("Q4_1", 32, 20),
        6: TensorType("Q5_0", 32, 22),
        7: TensorType("Q5_1", 32, 24),
        8: TensorType("Q8_0", 32, 34),
        12: TensorType("Q4_K", 256, 144),
        13: TensorType("Q5_K", 256, 176),
        14: TensorType("Q6_K", 256, 210),
        30: TensorType("BF16", 1, 2),
    }
)
_OTHER_TYPES: Mapping[int, str] = MappingProxyType(
    {
        9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
        18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64",
        28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
    }
)  # fmt: skip


class GGUFTensor(Struct, frozen=True):
    """Where a tensor lies. `shape` is outermost first, as in torch; `start` and `num_bytes` count from the file's beginning."""

    type: TensorType
    shape: tuple[int, ...]
    start: int
    num_bytes: int


class GGUFFile:
    """One opened file. Raises LoadError for anything that is not whole, at the time it is looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map = mapped(path)
        reader = _Reader(path, memoryview(self._map))
        num_tensors, num_keys = reader.header()
        self.metadata: Mapping[str, object] = MappingProxyType(_metadata(reader, num_keys))
        self._infos = _infos(reader, num_tensors)
        self._data_start = _aligned(reader, self.metadata.get("general.alignment", 32))

    @property
    def tensors(self) -> Mapping[str, GGUFTensor]:
        """All tensors by name. Raises LoadError when one is of a type that cannot be read, or lies outside the file."""
        return {name: self._tensor(name, info) for name, info in self._infos.items()}

    def data(self, tensor: GGUFTensor) -> memoryview:
        """The tensor's bytes, not copied."""
        return memoryview(self._map)[tensor.start : tensor.start + tensor.num_bytes]

    def release(self) -> None:
        """Give back the memory that holds what was looked at. It is read again where it is looked at again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _tensor(self, name: str, info: _Info) -> GGUFTensor:
        kind = _TYPES.get(info.type)
        if kind is None:
            raise LoadError(
                f"tensor {name!r} in {self._path} is stored as {_OTHER_TYPES.get(info.type, f'unknown type {info.type}')}",
                hint=f"get the model in one of {', '.join(known.name for known in _TYPES.values())}",
            )
        if info.shape[-1] % kind.block_size:
            raise LoadError(f"tensor {name!r} in {self._path} has rows of {info.shape[-1]}, {kind.name} has blocks of {kind.block_size}")
        count = 1
        for length in info.shape:
            count *= length
        start, num_bytes = self._data_start + info.offset, count // kind.block_size * kind.block_bytes
        if start + num_bytes > len(self._map):
            raise LoadError(
                f"{self._path} ends at byte {len(self._map)}, tensor {name!r} at {start + num_bytes}",
                hint="the file is cut off: get it again",
            )
        return GGUFTensor(kind, info.shape, start, num_bytes)


class _Info(Struct, frozen=True):
    shape: tuple[int, ...]
    type: int
    offset: int


class _Reader:
    """A cursor that never passes the end."""

    def __init__(self, path: Path, view: memoryview) -> None:
        self._path = path
        self._view = view
        self.position = 0

    def broken(self, what: str) -> LoadError:
        return LoadError(f"{self._path} is not a GGUF file that can be read: {what}", hint="get the file again, or convert it again")

    def header(self) -> tuple[int, int]:
        """Numbers of tensors and of metadata keys."""
        if bytes(self._view[:4]) != _MAGIC:
            raise self.broken("it does not begin with GGUF")
        self.position = 4
        version = self.number("I")
        if version not in _VERSIONS:
            raise self.broken(f"version {version}, known are {' and '.join(map(str, _VERSIONS))} (little-endian)")
        return self.number("Q"), self.number("Q")

    def take(self, num_bytes: int) -> memoryview:
        begin, end = self.position, self.position + num_bytes
        if end > len(self._view):
            raise self.broken(f"{num_bytes} bytes wanted at byte {begin} of {len(self._view)}")
        self.position = end
        return self._view[begin:end]

    def number(self, code: str) -> int:
        """An integer of the struct module's type `code`."""
        return int(self.numbers(code, 1)[0])

    def numbers(self, code: str, count: int) -> list[int | float | bool]:
        return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}"))))

    def string(self) -> str:
        return str(self.take(self.number("Q")), "utf-8", errors="replace")

    def value(self, kind: int, depth: int = 0) -> object:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(depth + 1)
        if kind in _SCALARS:
            return self.numbers(_SCALARS[kind], 1)[0]
        raise self.broken(f"a metadata value has unknown type {kind}")

    def _array(self, depth: int) -> list[object]:
        if depth > _MAX_DEPTH:
            raise self.broken(f"arrays are nested more than {_MAX_DEPTH} deep")
        kind, count = self.number("I"), self.number("Q")
        if kind in _SCALARS:
            return list(self.numbers(_SCALARS[kind], count))
        return list(self._strings(count)) if kind == _STRING else [self.value(kind, depth) for _ in range(count)]

    def _strings(self, count: int) -> Iterator[str]:
        """As `string`, for vocabularies: most of a file's metadata, and of the time that it takes."""
        view, position, size = self._view, self.position, len(self._view)
        length_at = struct.Struct("<Q").unpack_from
        for _ in range(count):
            begin = position + 8
            position = begin + length_at(view, position)[0] if begin <= size else begin
            if position > size:
                raise self.broken(f"a string wanted at byte {begin - 8} of {size}")
            yield str(view[begin:position], "utf-8", errors="replace")
        self.position = position


def _metadata(reader: _Reader, count: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(count):
        key = reader.string()
        if key in found:
            raise reader.broken(f"metadata key {key!r} occurs twice")
        found[key] = reader.value(reader.number("I"))
    return found


def _infos(reader: _Reader, count: int) -> dict[str, _Info]:
    found: dict[str, _Info] = {}
    for _ in range(count):
        name, num_dims = reader.string(), reader.number("I")
        if name in found or not 1 <= num_dims <= _MAX_DIMS:
            raise reader.broken(f"tensor {name!r} occurs twice or has {num_dims} dimensions")
        shape = tuple(int(length) for length in reversed(reader.numbers("Q", num_dims)))  # the file has the innermost first
        found[name] = _Info(shape, reader.number("I"), reader.number("Q"))
    return found


def _aligned(reader: _Reader, alignment: object) -> int:
    """Where the data begins."""
    if not isinstance(alignment, int) or alignment < 1:
        raise reader.broken(f"general.alignment is {alignment!r}")
    return -(-reader.position // alignment) * alignment
