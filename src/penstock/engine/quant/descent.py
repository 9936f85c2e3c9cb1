"""Coordinate descent: codes and scales in turn, each the best for the others as they are.

With all codes given, the scales of a row that keep its outputs nearest are the solution of one small linear system. With all
scales given, one code after the other takes the value that is best beside the rest (QuantEase, Behdin et al., arXiv:2309.01885).
Every step lowers the error of the outputs, or leaves it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.engine.quant.rtn import Grid

PASSES = 2
BLOCK = 128  # columns whose changes are collected before the rest of the matrix gets them
ROWS = 256  # at a time, when scales are solved for
RIDGE = 1e-5  # of a system's mean diagonal: a group may have all codes at zero


def descend(weight: Tensor, codes: Tensor, grid: Grid, hessian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Better codes [rows, cols], with their scales and zeros [rows, groups], where an error E of the weights costs E H E^T.

    `codes` are whole numbers as floats on `grid`, and used up. Scales are float16 numbers.
    """
    rows, cols = weight.shape
    size = rows * cols // len(grid.scales)
    zeros = torch.as_tensor(grid.zeros).expand(len(grid.scales), 1).reshape(rows, -1)
    zero = zeros.repeat_interleave(size, 1)
    for _ in range(PASSES):
        scales = _best_scales(weight, codes - zero, hessian, size)
        _best_codes(weight, codes, zero, scales.repeat_interleave(size, 1), hessian, grid.levels)
    return codes, _best_scales(weight, codes - zero, hessian, size), zeros


def _best_scales(weight: Tensor, steps: Tensor, hessian: Tensor, size: int) -> Tensor:
    """Of least error for these steps (codes less their zero): [rows, groups]."""
    groups = weight.shape[1] // size
    each = []
    for part, wanted in zip(torch.split(steps, ROWS), torch.split(weight @ hessian, ROWS), strict=True):
        grouped = part.view(-1, groups, size)
        products = torch.einsum("rgi,gic->rgc", grouped, hessian.view(groups, size, -1)).view(-1, groups, groups, size)
        system = torch.einsum("rghj,rhj->rgh", products, grouped).double()
        system.diagonal(dim1=1, dim2=2).add_(RIDGE * system.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + 1e-30)
        each.append(torch.linalg.solve(system, (wanted * part).view(-1, groups, size).sum(-1).double()))
    return torch.cat(each).half().float()


def _best_codes(weight: Tensor, codes: Tensor, zero: Tensor, scale: Tensor, hessian: Tensor, levels: int) -> None:
    """One pass over the columns. `zero` and `scale` are those of each code."""
    pull = (weight - (codes - zero) * scale) @ hessian  # how much each code's error costs, by its first derivative
    steps = torch.where(scale == 0, 0.0, 1.0 / scale) / hessian.diagonal()
    for begin in range(0, weight.shape[1], BLOCK):
        end = min(begin + BLOCK, weight.shape[1])
        changes = torch.empty_like(codes[:, begin:end])
        block = pull[:, begin:end].contiguous()
        for i in range(begin, end):
            better = torch.addcmul(codes[:, i], block[:, i - begin], steps[:, i]).round_().clamp_(0, levels)
            change = (better - codes[:, i]).mul_(scale[:, i])
            codes[:, i], changes[:, i - begin] = better, change
            block.addr_(change, hessian[i, begin:end], alpha=-1)
        pull[:, end:].addmm_(changes, hessian[begin:end, end:], alpha=-1)
