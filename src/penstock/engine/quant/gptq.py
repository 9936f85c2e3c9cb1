"""GPTQ (Frantar et al., arXiv:2210.17323): column by column, each one's rounding error is made up for by those that follow.

The mean squared error of a layer's outputs is a quadratic form of the error of its weights, whose matrix H is the inputs'
second moment. Once a column is rounded, the best that the columns left can do about it is known in closed form: the
Cholesky factor of H's inverse holds it for all columns at once.

Columns with large inputs go first, while many are left to make up for them (act-order). The grids of all groups are settled
before, from the weights as they are, so that a group stays a run of neighbouring inputs and a checkpoint needs no `g_idx`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.inputs import Inputs
from penstock.engine.quant.quantized import Quantized
from penstock.engine.quant.rtn import Grid, fit

DAMPING = 0.01  # of the mean of H's diagonal, added to it: the text did not show all there is
BLOCK = 128  # columns whose corrections are collected before the rest of the matrix gets them


@torch.inference_mode()
def gptq(weight: Tensor, inputs: Inputs, form: WeightFormat) -> Quantized:
    """Codes for weight [rows, cols] that keep W x close for x as in `inputs`."""
    rows, cols = weight.shape
    size = form.group or cols
    order, factor = _compensation(inputs.moments)
    groups = weight.float().reshape(-1, size)
    cost = torch.empty(cols).index_copy_(0, order, factor.diagonal().pow(-2).float())  # of a column's squared error
    grid = fit(groups, form, cost.view(-1, size).repeat(rows, 1))
    codes = _round(weight.float()[:, order], factor.float(), _columns(grid, rows, cols, order))
    minima = (grid.scales * grid.zeros).view(rows, -1).half() if form.asymmetrical else None
    natural = torch.empty(rows, cols, dtype=torch.uint8).index_copy_(1, order, codes)
    return Quantized(natural, grid.scales.view(rows, -1).half(), minima, form.bits)


def _compensation(moments: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the columns, and the upper Cholesky factor [cols, cols] of H's inverse in that order."""
    hessian = moments.double()
    diagonal = hessian.diagonal()
    floor = DAMPING * float(diagonal.mean())
    diagonal.add_(floor if floor > 0 else 1.0)
    order = diagonal.argsort(descending=True, stable=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
    return order, torch.linalg.cholesky(inverse, upper=True)


def _columns(grid: Grid, rows: int, cols: int, order: Tensor) -> list[Grid]:
    """The grid of each column, in `order`."""
    size = rows * cols // len(grid.scales)
    scales = grid.scales.view(rows, -1).T.contiguous()  # [groups of a row, rows]
    zeros = grid.zeros if isinstance(grid.zeros, float) else grid.zeros.view(rows, -1).T.contiguous()
    each = [Grid(scales[i], zeros if isinstance(zeros, float) else zeros[i], grid.levels) for i in range(len(scales))]
    return [each[column // size] for column in order.tolist()]


def _round(weight: Tensor, factor: Tensor, grids: list[Grid]) -> Tensor:
    """Codes [rows, cols] of `weight`, which is used up; its columns are in the order of `factor` and `grids`."""
    cols = weight.shape[1]
    columns = weight.T.contiguous()  # [cols, rows]
    codes = torch.empty_like(columns, dtype=torch.uint8)
    for begin in range(0, cols, BLOCK):
        end = min(begin + BLOCK, cols)
        errors = torch.empty_like(columns[begin:end])
        for i in range(begin, end):
            code = grids[i].codes(columns[i])
            error = (columns[i] - grids[i].values(code)).div_(factor[i, i])
            columns[i + 1 : end].addr_(factor[i, i + 1 : end], error, alpha=-1)
            codes[i], errors[i - begin] = code, error
        columns[end:].addmm_(factor[begin:end, end:].T, errors, alpha=-1)
    return codes.T.contiguous()
