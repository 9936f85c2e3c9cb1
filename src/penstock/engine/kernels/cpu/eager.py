"""The reference on a CPU, with matrix products that read a large weight at memory speed when few tokens share it.

`torch.nn.functional.linear` loses up to half of its speed between one token and a few dozen: its float32 product is then
neither a matrix-vector product nor large enough to tile well, and its bfloat16 product first rearranges the weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.engine.kernels.protocol import Linear
from penstock.engine.kernels.reference import ReferenceKernels

LARGE = 1_000_000  # elements; a smaller weight stays in cache, and the shortest path to it wins
ONEDNN_FROM = 4  # tokens
SWAPPED = range(2, 129)  # tokens


class CPUKernels(ReferenceKernels):
    """As the reference, but for rounding: the same weights, in place, by another route."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        weight = linear.weight
        if isinstance(weight, Tensor) and weight.numel() >= LARGE:
            if x.dtype is torch.float32 and len(x) >= ONEDNN_FROM:
                return _onednn(x, weight, linear.bias)
            if x.dtype is torch.bfloat16 and len(x) in SWAPPED:
                return _swapped(x, weight, linear.bias)
        return super().linear(x, linear)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _swapped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x^T, transposed: the weight is the left operand, whose layout the product takes as it is."""
    out = (weight @ x.t()).t().contiguous()
    return out if bias is None else out.add_(bias)
