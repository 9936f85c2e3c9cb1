"""What a matrix was given to multiply while a text was read: enough to choose its codes by what they do to its outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 4096  # tokens at a time


@dataclass(frozen=True, slots=True)
class Inputs:
    """Statistics of x over tokens, for one matrix y = W x. Exact but for rounding, and as large as the matrix, not the text."""

    moments: Tensor  # [cols, cols] float32: mean of x x^T, half of GPTQ's Hessian
    typical: Tensor  # [cols] mean |x|
    largest: Tensor  # [cols] max |x|
    crossed: Tensor | None = None  # [cols, cols]: mean of f x^T, where the float model has the inputs f

    @staticmethod
    def of(x: Tensor, floats: Tensor | None = None) -> Inputs:
        """x [tokens, cols] of any float type; `floats` are the same tokens in the float model."""
        moments = torch.zeros(x.shape[1], x.shape[1])
        crossed = None if floats is None else torch.zeros_like(moments)
        typical, largest = torch.zeros(x.shape[1]), torch.zeros(x.shape[1])
        for begin in range(0, len(x), CHUNK):
            chunk = x[begin : begin + CHUNK].float()
            moments.addmm_(chunk.T, chunk)
            if floats is not None and crossed is not None:
                crossed.addmm_(floats[begin : begin + CHUNK].float().T, chunk)
            absolute = chunk.abs()
            typical += absolute.sum(0)
            torch.maximum(largest, absolute.amax(0), out=largest)
        return Inputs(moments.div_(len(x)), typical.div_(len(x)), largest, None if crossed is None else crossed.div_(len(x)))

    @property
    def importance(self) -> Tensor:
        """[cols]: how much the squared error of each column counts if errors are independent."""
        return self.moments.diagonal()

    def divided(self, scales: Tensor) -> Inputs:
        """The same of x / scales."""
        both = torch.outer(scales, scales)
        crossed = None if self.crossed is None else self.crossed / both
        return Inputs(self.moments / both, self.typical / scales, self.largest / scales, crossed)

    def shared(self, heads: int, times: int, size: int) -> Inputs:
        """With `typical` and `largest` the same for the `times` heads in a row that share a source."""
        typical = self.typical.view(heads, times, size).mean(1, keepdim=True).expand(-1, times, -1).flatten()
        largest = self.largest.view(heads, times, size).amax(1, keepdim=True).expand(-1, times, -1).flatten()
        return Inputs(self.moments, typical, largest, self.crossed)

    def loss(self, difference: Tensor) -> float:
        """Mean squared error of the outputs, summed over them, where the matrix is off by `difference` [rows, cols]."""
        return float(torch.linalg.vecdot(difference @ self.moments, difference).sum())
