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

    @staticmethod
    def of(x: Tensor) -> Inputs:
        """x [tokens, cols] of any float type."""
        moments = torch.zeros(x.shape[1], x.shape[1])
        typical, largest = torch.zeros(x.shape[1]), torch.zeros(x.shape[1])
        for chunk in torch.split(x, CHUNK):
            floats = chunk.float()
            moments.addmm_(floats.T, floats)
            absolute = floats.abs()
            typical += absolute.sum(0)
            torch.maximum(largest, absolute.amax(0), out=largest)
        return Inputs(moments.div_(len(x)), typical.div_(len(x)), largest)

    @property
    def importance(self) -> Tensor:
        """[cols]: how much the squared error of each column counts if errors are independent."""
        return self.moments.diagonal()

    def divided(self, scales: Tensor) -> Inputs:
        """The same of x / scales."""
        return Inputs(self.moments / torch.outer(scales, scales), self.typical / scales, self.largest / scales)

    def shared(self, heads: int, times: int, size: int) -> Inputs:
        """With `typical` and `largest` the same for the `times` heads in a row that share a source."""
        typical = self.typical.view(heads, times, size).mean(1, keepdim=True).expand(-1, times, -1).flatten()
        largest = self.largest.view(heads, times, size).amax(1, keepdim=True).expand(-1, times, -1).flatten()
        return Inputs(self.moments, typical, largest)

    def loss(self, difference: Tensor) -> float:
        """Mean squared error of the outputs, summed over them, where the matrix is off by `difference` [rows, cols]."""
        return float(torch.linalg.vecdot(difference @ self.moments, difference).sum())
