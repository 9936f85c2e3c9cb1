"""A weight matrix in few bits, in the plain layout that every reader and method produces and every kernel packs from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Quantized:
    """W[r, c] = scales[r, c // group] * codes[r, c] - minima[r, c // group].

    Without `minima` the codes are symmetrical about `zero`: minima = zero * scales. With `order`, column j of the codes
    multiplies input order[j] (GPTQ's act-order); group boundaries are those of the columns.
    """

    codes: Tensor  # [rows, cols] uint8, below 2 ** bits
    scales: Tensor  # [rows, cols / group] float16
    minima: Tensor | None  # as scales
    bits: int  # 4 or 8
    order: Tensor | None = None  # [cols] int32

    @property
    def shape(self) -> tuple[int, int]:
        rows, cols = self.codes.shape
        return rows, cols

    @property
    def group(self) -> int:
        """Inputs that share one scale."""
        return self.codes.shape[1] // self.scales.shape[1]

    @property
    def zero(self) -> int:
        return 1 << (self.bits - 1)

    def rows(self, index: Tensor) -> Quantized:
        """The rows that `index` [count] chooses, in its order."""
        minima = None if self.minima is None else self.minima[index]
        return Quantized(self.codes[index], self.scales[index], minima, self.bits, self.order)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """-> [rows, cols], the columns in the order of the inputs."""
        rows, cols = self.shape
        codes, scales = self.codes.view(rows, -1, self.group).float(), self.scales.float().unsqueeze(-1)
        steps = (codes - self.zero) * scales if self.minima is None else codes * scales - self.minima.float().unsqueeze(-1)
        weight = steps.view(rows, cols)
        if self.order is not None:
            weight = torch.empty_like(weight).index_copy_(1, self.order.long(), weight)
        return weight.to(dtype)


def stack(parts: Sequence[Quantized]) -> Quantized:
    """Matrices that share their inputs, bits, group and order, one below the other."""
    first = parts[0]
    minima = [part.minima for part in parts if part.minima is not None]
    return Quantized(
        torch.cat([part.codes for part in parts]),
        torch.cat([part.scales for part in parts]),
        torch.cat(minima) if minima else None,
        first.bits,
        first.order,
    )
