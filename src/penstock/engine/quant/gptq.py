"""GPTQ (Frantar et al., arXiv:2210.17323): column by column, each one's rounding error is made up for by those that follow.

The mean squared error of a layer's outputs is a quadratic form of the error of its weights, whose matrix H is the inputs'
second moment. Once a column is rounded, the best that the columns left can do about it is known in closed form: the
Cholesky factor of H's inverse holds it for all columns at once. Columns with large inputs go first, while many are left to
make up for them (act-order). The grids of all groups are settled before, from the weights as they are, so that a group stays
a run of neighbouring inputs and a checkpoint needs no order of its own.

Two things are added. The outputs to come near are not W x for the inputs x that the quantized layers before give, but go
half the way to those of the float model (GPTAQ, Li et al., arXiv:2504.02692): so errors of earlier layers are made up for,
too. And when all codes are chosen, `descent` goes over them again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.engine.quant.descent import descend
from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.inputs import Inputs
from penstock.engine.quant.quantized import Quantized
from penstock.engine.quant.rtn import Grid, fit

DAMPING = 0.01  # of the mean of H's diagonal, added to it: the text did not show all there is
BLOCK = 128  # columns whose corrections are collected before the rest of the matrix gets them
TRUST = 0.5  # how far to go from the layer's own outputs to the float model's; all the way would fit the text too well


@torch.inference_mode()
def gptq(weight: Tensor, inputs: Inputs, form: WeightFormat) -> Quantized:
    """Codes for weight [rows, cols] that keep W x close for x as in `inputs`."""
    rows, cols = weight.shape
    size = form.group or cols
    hessian, damping = _damped(inputs.moments)
    lower = torch.linalg.cholesky(hessian)
    target = weight.float() if inputs.crossed is None else _target(weight.float(), inputs.crossed, damping, lower)
    order = hessian.diagonal().argsort(descending=True, stable=True)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(lower)[order][:, order], upper=True)
    cost = torch.empty(cols).index_copy_(0, order, factor.diagonal().pow(-2).float())  # of a column's squared error
    grid = fit(target.reshape(-1, size), form, cost.view(-1, size).repeat(rows, 1))
    codes = _round(target[:, order], factor.float(), _columns(grid, rows, cols, order))
    natural = torch.empty_like(codes).index_copy_(1, order, codes)
    codes, scales, zeros = descend(target, natural, grid, hessian.float())
    minima = (scales * zeros).half() if form.asymmetrical else None
    return Quantized(codes.to(torch.uint8), scales.half(), minima, form.bits)


def _damped(moments: Tensor) -> tuple[Tensor, float]:
    """H, and what was added to its diagonal."""
    hessian = moments.double()
    damping = DAMPING * float(hessian.diagonal().mean()) or 1.0
    hessian.diagonal().add_(damping)
    return hessian, damping


def _target(weight: Tensor, crossed: Tensor, damping: float, lower: Tensor) -> Tensor:
    """Weights that bring W x near the float model's outputs: regression that holds on to W. `lower` is H's Cholesky factor."""
    products = weight.double() @ crossed.double() + damping * weight.double()
    best = torch.cholesky_solve(products.T, lower).T.float()
    return torch.lerp(weight, best, TRUST)


def _columns(grid: Grid, rows: int, cols: int, order: Tensor) -> list[Grid]:
    """The grid of each column, in `order`."""
    size = rows * cols // len(grid.scales)
    scales = grid.scales.view(rows, -1).T.contiguous()  # [groups of a row, rows]
    zeros = grid.zeros if isinstance(grid.zeros, float) else grid.zeros.view(rows, -1).T.contiguous()
    each = [Grid(scales[i], zeros if isinstance(zeros, float) else zeros[i], grid.levels) for i in range(len(scales))]
    return [each[column // size] for column in order.tolist()]


def _round(weight: Tensor, factor: Tensor, grids: list[Grid]) -> Tensor:
    """Codes [rows, cols], as floats, of `weight`; its columns are in the order of `factor` and `grids`."""
    cols = weight.shape[1]
    columns = weight.T.contiguous()  # [cols, rows], used up
    codes = torch.empty_like(columns)
    for begin in range(0, cols, BLOCK):
        end = min(begin + BLOCK, cols)
        errors = torch.empty_like(columns[begin:end])
        for i in range(begin, end):
            codes[i] = grids[i].codes(columns[i])
            error = (columns[i] - grids[i].values(codes[i])).div_(factor[i, i])
            columns[i + 1 : end].addr_(factor[i, i + 1 : end], error, alpha=-1)
            errors[i - begin] = error
        columns[end:].addmm_(factor[begin:end, end:].T, errors, alpha=-1)
    return codes.T.contiguous()
