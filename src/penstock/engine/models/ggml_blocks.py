"""GGUF's number formats, as ggml defines them (https://github.com/ggml-org/ggml, src/ggml-quants.c).

A quantized tensor is a row of blocks; each block has its own scales and decodes by itself. All formats here are of the
kind that `Quantized` describes, so their codes are kept: `read` only unpacks them. Scales of scales are multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.quantized import Quantized
from penstock.files.gguf import TensorType

_STEP_BYTES = 2**20  # decoded at a time: what lies between stays in the processor's cache


def format_of(kind: TensorType, shape: tuple[int, ...]) -> torch.dtype | WeightFormat:
    """What `read` gives for such a tensor."""
    if kind.name in _PLAIN:
        return _PLAIN[kind.name]
    return _FORMATS[kind.name].format if len(shape) == 2 else torch.float32


@contextmanager
def _one_thread() -> Iterator[None]:
    """What is done with a few blocks takes less time than waking other threads, and far less than waiting for them on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def read(data: memoryview, kind: TensorType, shape: tuple[int, ...]) -> Tensor | Quantized:
    """The numbers in `data` as codes with float16 scales when they are a quantized matrix, else as `dequantize` gives them."""
    form = format_of(kind, shape)
    if isinstance(form, torch.dtype):
        return dequantize(data, kind, shape)
    blocks = _blocks(data, kind)
    codes = torch.empty(len(blocks), kind.block_size, dtype=torch.uint8)
    scales = torch.empty(len(blocks), kind.block_size // _FORMATS[kind.name].group, dtype=torch.float16)
    minima = torch.empty_like(scales) if form.asymmetrical else None
    for part, decoded in _decoded(blocks, kind):
        codes[part], scales[part] = decoded.codes, decoded.scales
        if minima is not None and decoded.minima is not None:
            minima[part] = decoded.minima
    rows = shape[0]
    return Quantized(codes.view(shape), scales.view(rows, -1), None if minima is None else minima.view(rows, -1), form.bits)


@_one_thread()
def dequantize(data: memoryview, kind: TensorType, shape: tuple[int, ...]) -> Tensor:
    """The numbers in `data` as a tensor of `shape`: float32, to the last bit as ggml has them, when quantized.

    Others share the memory of `data`, which must be writable for torch's sake.
    """
    if kind.name in _PLAIN:
        return torch.frombuffer(data, dtype=_PLAIN[kind.name]).view(shape)
    blocks = _blocks(data, kind)
    numbers = torch.empty(len(blocks), kind.block_size)
    for part, decoded in _decoded(blocks, kind):
        numbers[part] = _floats(decoded, _FORMATS[kind.name])
    return numbers.view(shape)


class _Decoded(NamedTuple):
    """Some blocks, as in `Quantized`."""

    codes: Tensor  # [blocks, block_size] uint8
    scales: Tensor  # [blocks, block_size / group] float32
    minima: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _Blocks:
    """A kind of blocks. Five and six bits live in codes of eight."""

    format: WeightFormat
    decode: Callable[[Tensor], _Decoded]  # from [blocks, block_bytes] uint8

    @property
    def group(self) -> int:
        return self.format.group or 0


def _blocks(data: memoryview, kind: TensorType) -> Tensor:
    return torch.frombuffer(data, dtype=torch.uint8).view(-1, kind.block_bytes)


def _decoded(blocks: Tensor, kind: TensorType) -> Iterator[tuple[slice, _Decoded]]:
    """All blocks, some at a time, with their places."""
    step = max(1, _STEP_BYTES // blocks.shape[1])
    for begin in range(0, len(blocks), step):
        part = slice(begin, begin + step)
        yield part, _FORMATS[kind.name].decode(blocks[part])


def _floats(decoded: _Decoded, kind: _Blocks) -> Tensor:
    """-> [blocks, block_size] float32"""
    codes, scales = decoded.codes.view(len(decoded.codes), -1, kind.group).float(), decoded.scales.unsqueeze(-1)
    if decoded.minima is None:
        return ((codes - (1 << (kind.format.bits - 1))) * scales).flatten(1)
    return (codes * scales - decoded.minima.unsqueeze(-1)).flatten(1)


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of each block, [blocks, 1] float32."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(blocks: Tensor) -> Tensor:
    """Their low halves, then their high ones."""
    return torch.cat([blocks & 15, blocks >> 4], dim=-1)


def _q8_0(blocks: Tensor) -> _Decoded:
    """scale f16 │ 32 × i8"""
    return _Decoded(blocks[:, 2:34] ^ 128, _half(blocks, 0))


def _q4_0(blocks: Tensor) -> _Decoded:
    """scale f16 │ 16 bytes: their low halves, then their high ones, minus 8"""
    return _Decoded(_nibbles(blocks[:, 2:18]), _half(blocks, 0))


def _q4_1(blocks: Tensor) -> _Decoded:
    """scale f16, minimum f16 (added) │ 16 bytes as in Q4_0"""
    return _Decoded(_nibbles(blocks[:, 4:20]), _half(blocks, 0), -_half(blocks, 2))


def _fifth_bits(blocks: Tensor) -> Tensor:
    """4 bytes [blocks, 4]: bit i of them all is the fifth one of number i."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return (blocks.unsqueeze(-1) >> shifts & 1).flatten(1) << 4


def _q5_0(blocks: Tensor) -> _Decoded:
    """scale f16 │ 4 bytes of fifth bits │ 16 bytes as in Q4_0; minus 16, which is 128 - 112"""
    return _Decoded((_nibbles(blocks[:, 6:22]) | _fifth_bits(blocks[:, 2:6])) + 112, _half(blocks, 0))


def _q5_1(blocks: Tensor) -> _Decoded:
    """scale f16, minimum f16 (added) │ 4 bytes of fifth bits │ 16 bytes as in Q4_0"""
    return _Decoded(_nibbles(blocks[:, 8:24]) | _fifth_bits(blocks[:, 4:8]), _half(blocks, 0), -_half(blocks, 2))


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """scale f16, scale of minima f16 │ 8 scales and 8 minima of 6 bits: [blocks, 8] each, multiplied out"""
    packed = blocks[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat([first & 63, third & 15 | first >> 6 << 4], dim=-1)
    minima = torch.cat([second & 63, third >> 4 | second >> 6 << 4], dim=-1)
    return scales.float() * _half(blocks, 0), minima.float() * _half(blocks, 2)


def _q4_k(blocks: Tensor) -> _Decoded:
    """scales and minima │ 128 bytes: per 32 of them, low halves, then high ones"""
    codes = _nibbles(blocks[:, 16:144].view(-1, 4, 32))
    return _Decoded(codes.view(-1, 256), *_k_scales(blocks))


def _q5_k(blocks: Tensor) -> _Decoded:
    """scales and minima │ 32 bytes: bit i of byte j is the fifth one of number 32 i + j │ 128 bytes as in Q4_K"""
    fifth = blocks[:, 16:48].unsqueeze(1) >> torch.arange(8, dtype=torch.uint8).view(8, 1) & 1
    codes = _nibbles(blocks[:, 48:176].view(-1, 4, 32)).view(-1, 8, 32) | fifth << 4
    return _Decoded(codes.view(-1, 256), *_k_scales(blocks))


def _q6_k(blocks: Tensor) -> _Decoded:
    """128 bytes of low 4 bits │ 64 bytes of high 2 bits │ 16 × i8 scales │ scale f16; both halves of 128 numbers alike

    Minus 32, which is 128 - 96.
    """
    low = _nibbles(blocks[:, :128].view(-1, 2, 64)).view(-1, 2, 4, 32)
    high = blocks[:, 128:192].view(-1, 2, 1, 32)
    high = torch.cat([high >> shift & 3 for shift in (0, 2, 4, 6)], dim=2)
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float() * _half(blocks, 208)
    return _Decoded((low | high << 4).view(-1, 256) + 96, scales)


_PLAIN: Mapping[str, torch.dtype] = MappingProxyType({"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16})
_FORMATS: Mapping[str, _Blocks] = MappingProxyType(
    {
        "Q8_0": _Blocks(WeightFormat(8), _q8_0),
        "Q4_0": _Blocks(WeightFormat(4), _q4_0),
        "Q4_1": _Blocks(WeightFormat(4, asymmetrical=True), _q4_1),
        "Q5_0": _Blocks(WeightFormat(8), _q5_0),
        "Q5_1": _Blocks(WeightFormat(8, asymmetrical=True), _q5_1),
        "Q4_K": _Blocks(WeightFormat(4, asymmetrical=True), _q4_k),
        "Q5_K": _Blocks(WeightFormat(8, asymmetrical=True), _q5_k),
        "Q6_K": _Blocks(WeightFormat(8, group=16), _q6_k),
    }
)
