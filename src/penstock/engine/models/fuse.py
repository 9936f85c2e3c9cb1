"""Matrices in few bits that share their inputs, made one, whatever forms they have.

llama.cpp stores the values of a layer in more bits than its queries and keys (Q4_K_M: Q6_K beside Q4_K), so the parts of a
fused matrix may differ. They get the form that can say what each of them says: the most bits, the largest group that
divides all, minima where one has them. Codes stay as they are or move by a constant, scales are repeated; nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd

import torch
from torch import Tensor

from penstock.engine.quant.quantized import Quantized, stack


def fuse(parts: Sequence[Tensor | Quantized]) -> Quantized | None:
    """The parts one below the other. None where they cannot be one matrix in few bits: one is a float, or columns differ in order."""
    quantized = [part for part in parts if isinstance(part, Quantized)]
    if len(quantized) < len(parts) or not all(_same_order(part, quantized[0]) for part in quantized):
        return None
    if len(parts) == 1:
        return quantized[0]
    bits = max(part.bits for part in quantized)
    group = gcd(*(part.group for part in quantized))
    has_minima = any(part.minima is not None for part in quantized)
    return stack([_with_minima(regroup(part, group), bits, has_minima) for part in quantized])


def regroup(matrix: Quantized, group: int) -> Quantized:
    """The same numbers in smaller groups: `group` divides those of `matrix`."""
    if matrix.group == group:
        return matrix
    times = matrix.group // group
    minima = None if matrix.minima is None else matrix.minima.repeat_interleave(times, dim=1)
    return replace(matrix, scales=matrix.scales.repeat_interleave(times, dim=1), minima=minima)


def _with_minima(matrix: Quantized, bits: int, has_minima: bool) -> Quantized:
    """The same numbers as codes of `bits` bits. Only symmetrical codes change: their zero moves."""
    if matrix.minima is not None:
        return replace(matrix, bits=bits)
    if has_minima:  # a power of two times a float16 number is one, too
        return replace(matrix, bits=bits, minima=matrix.scales * matrix.zero)
    return replace(matrix, bits=bits, codes=matrix.codes + ((1 << (bits - 1)) - matrix.zero))


def _same_order(one: Quantized, other: Quantized) -> bool:
    if one.order is None or other.order is None:
        return one.order is other.order
    return torch.equal(one.order, other.order)
