"""Weight matrices in the layout of the native kernels, which is the same for every build of the library.

    packed = Packed(library, quantized)         int8 or int4
    packed = Packed(library, weight)            float32, float16 or bfloat16, stored as they are
    packed.matrix                               the struct that operations take

The packed bytes are this object's own; what they were made from can be freed.
"""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor

from penstock.core.errors import Bug, LoadError
from penstock.engine.kernels.cpu.library import Library
from penstock.engine.kernels.cpu.structs import Format, Matrix
from penstock.engine.quant.quantized import Quantized

FLOATS = {torch.float32: Format.FLOAT32, torch.float16: Format.FLOAT16, torch.bfloat16: Format.BFLOAT16}
CODES = {8: Format.INT8, 4: Format.INT4}
COLUMNS = {Format.INT8: 16, Format.INT4: 32}  # the columns are a multiple of it
GROUP = 16  # likewise the group
LARGE_PAGE = 2 << 20  # bytes
LARGEST_GROUP = 65536  # sums of a group stay within 32 bits
MOST = 2**31  # rows and columns are 32-bit numbers


class Packed:
    """One matrix [rows, cols]. LoadError where the kernels have no layout for it (see `obstacle`)."""

    def __init__(self, library: Library, source: Quantized | Tensor) -> None:
        if problem := obstacle(source):
            raise LoadError(f"a weight of shape {list(source.shape)} cannot be packed for the native kernels: {problem}")
        self._library = library
        rows, cols = source.shape
        numbers = (source.codes if isinstance(source, Quantized) else source).contiguous()
        self.matrix = Matrix(format=_format(source), rows=rows, cols=cols, group=cols)
        scales, minima = None, None
        if isinstance(source, Quantized):
            self.matrix.group = source.group
            scales, minima = source.scales.contiguous(), None if source.minima is None else source.minima.contiguous()
        self._numbers = _memory(library.codes_bytes(self.matrix))
        self._scales = _memory(library.scales_bytes(self.matrix))
        self._minima = None if minima is None else _memory(self._scales.nbytes)
        self._order = source.order.to(torch.int32, copy=True) if isinstance(source, Quantized) and source.order is not None else None
        self.matrix.codes = self._numbers.data_ptr()
        self.matrix.scales = _address(self._scales)
        self.matrix.minima = _address(self._minima)
        self.matrix.order = _address(self._order)
        library.pack(self.matrix, numbers.data_ptr(), _address(scales), _address(minima))

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.rows, self.matrix.cols

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the weights take."""
        return sum(part.nbytes for part in (self._numbers, self._scales, self._minima, self._order) if part is not None)

    def dequantize(self) -> Tensor:
        """-> [rows, cols] float32: what the kernels multiply by."""
        return self.rows(torch.arange(self.shape[0]))

    def rows(self, ids: Tensor) -> Tensor:
        """Rows `ids` [n] -> [n, cols] float32."""
        out = torch.empty(len(ids), self.shape[1])
        for place, row in zip(out, ids.tolist(), strict=True):
            self._library.unpack_row(self.matrix, row, place.data_ptr())
        return out


def packed(weight: object) -> Packed:
    """`weight`, which must have been packed."""
    if not isinstance(weight, Packed):
        raise Bug(f"the native kernels were given a {type(weight).__name__} that is not packed")
    return weight


def obstacle(source: Quantized | Tensor) -> str | None:
    """Why the kernels have no layout for a matrix; None when they have."""
    if len(source.shape) != 2 or 0 in source.shape:
        return "it is not a matrix"
    if max(source.shape) >= MOST:
        return f"it has {max(source.shape)} rows or columns, and fewer than {MOST} are possible"
    if isinstance(source, Tensor):
        return None if source.dtype in FLOATS else f"{source.dtype} is none of {', '.join(map(str, FLOATS))}"
    if source.bits not in CODES:
        return f"{source.bits} bits are neither 4 nor 8"
    multiple, (_, cols) = COLUMNS[CODES[source.bits]], source.shape
    if cols % multiple:
        return f"its {cols} columns are no multiple of {multiple}"
    if cols % source.group or source.group % GROUP or source.group > LARGEST_GROUP:
        return f"its groups of {source.group} columns are no multiple of {GROUP} up to {LARGEST_GROUP} that divides {cols}"
    return None


def _memory(size: int) -> Tensor:
    """Bytes, in large pages where the system has them: a product that reads at memory speed then misses fewer translations."""
    if size < LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory seldom has large pages
    with contextlib.suppress(OSError):  # a kernel built without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)


def _format(source: Quantized | Tensor) -> Format:
    return CODES[source.bits] if isinstance(source, Quantized) else FLOATS[source.dtype]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
