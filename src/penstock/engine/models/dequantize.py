"""GGUF's number formats to float32, as ggml defines them (https://github.com/ggml-org/ggml, src/ggml-quants.c).

A quantized tensor is a row of blocks; each block has its own scale and decodes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from penstock.files.gguf import TensorType

_STEP_BYTES = 2**22  # decoded at a time: what lies between stays in the processor's cache


def dequantize(data: memoryview, kind: TensorType, shape: tuple[int, ...]) -> Tensor:
    """The numbers in `data` as a tensor of `shape`: float32 when quantized, else of the type they have in the file.

    Unquantized tensors share the memory of `data`, which must be writable for torch's sake.
    """
    if kind.name in _PLAIN:
        return torch.frombuffer(data, dtype=_PLAIN[kind.name]).view(shape)
    blocks = torch.frombuffer(data, dtype=torch.uint8).view(-1, kind.block_bytes)
    decoded = torch.empty(len(blocks), kind.block_size)
    decode, step = _DECODERS[kind.name], max(1, _STEP_BYTES // kind.block_bytes)
    for begin in range(0, len(blocks), step):
        decoded[begin : begin + step] = decode(blocks[begin : begin + step])
    return decoded.view(shape)


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of each block, [blocks, 1] float32."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _signed(blocks: Tensor, begin: int, end: int) -> Tensor:
    return blocks[:, begin:end].contiguous().view(torch.int8).float()


def _q8_0(blocks: Tensor) -> Tensor:
    """scale f16 │ 32 × i8"""
    return _signed(blocks, 2, 34) * _half(blocks, 0)


def _q4_0(blocks: Tensor) -> Tensor:
    """scale f16 │ 16 bytes: their low halves, then their high ones, minus 8"""
    nibbles = blocks[:, 2:18]
    numbers = torch.cat([nibbles & 15, nibbles >> 4], dim=-1)
    return (numbers.float() - 8.0) * _half(blocks, 0)


def _q4_k(blocks: Tensor) -> Tensor:
    """scale f16, scale of minima f16 │ 8 scales and 8 minima of 6 bits │ 128 bytes: per 32 of them, low halves, then high ones"""
    packed = blocks[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat([first & 63, third & 15 | first >> 6 << 4], dim=-1).float()  # [blocks, 8]
    minima = torch.cat([second & 63, third >> 4 | second >> 6 << 4], dim=-1).float()
    nibbles = blocks[:, 16:144].view(-1, 4, 1, 32)
    numbers = torch.cat([nibbles & 15, nibbles >> 4], dim=2).view(-1, 8, 32)
    scaled = numbers * (scales * _half(blocks, 0)).unsqueeze(-1)
    return (scaled - (minima * _half(blocks, 2)).unsqueeze(-1)).view(-1, 256)


def _q6_k(blocks: Tensor) -> Tensor:
    """128 bytes of low 4 bits │ 64 bytes of high 2 bits │ 16 × i8 scales │ scale f16; both halves of 128 numbers alike"""
    low = blocks[:, :128].view(-1, 2, 1, 64)
    low = torch.cat([low & 15, low >> 4], dim=2).view(-1, 2, 4, 32)
    high = blocks[:, 128:192].view(-1, 2, 1, 32)
    high = torch.cat([high >> shift & 3 for shift in (0, 2, 4, 6)], dim=2)
    numbers = (low | high << 4).view(-1, 16, 16).float() - 32.0
    return (numbers * (_signed(blocks, 192, 208) * _half(blocks, 208)).unsqueeze(-1)).view(-1, 256)


_PLAIN: Mapping[str, torch.dtype] = MappingProxyType({"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16})
_DECODERS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_K": _q4_k, "Q6_K": _q6_k})
