"""Round to nearest: codes from the weights alone, in a few seconds per billion of them.

A group's scale is not simply its largest weight over the largest code. A few ways to cut that weight short are tried, each
with the scale of least squared error for the codes that it gives; the best one goes through that once more (Lloyd's step).
Errors of large weights count more: a model feels them more than a plain sum of squares does, which would have them shrunk.
At 8 bits all this would change nothing that can be seen, and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.core.errors import Bug
from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.quantized import Quantized

CHUNK = 1 << 18  # weights at a time: few enough to stay in cache, enough to make a torch call worth it
_SPANS_INT4 = (8.5, 8.0, 7.5, 7.0)  # what the largest weight of a group becomes, before it is rounded and cut to the codes
_SHRINKS = (1.0, 0.95, 0.9, 0.85)  # of a group's range, where it has a zero point


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that codes stand for: scale * (code - zero). Scales are float16 numbers, of either sign."""

    scales: Tensor  # [groups, 1] float32
    zeros: Tensor | float  # [groups, 1] or one for all; whole numbers
    levels: int

    def codes(self, weights: Tensor) -> Tensor:
        """weights [groups, size] -> codes as floats."""
        return _rounded(weights, _inverse(self.scales), self.zeros, self.levels).add_(self.zeros)

    def values(self, codes: Tensor) -> Tensor:
        return (codes - self.zeros) * self.scales


@torch.inference_mode()
def round_to_nearest(weight: Tensor, form: WeightFormat, importance: Tensor | None = None) -> Quantized:
    """weight [rows, cols] of any float type. `importance` [cols]: how much the squared error of each input counts; without it,
    that of each weight counts as much as it is large."""
    rows, cols = weight.shape
    if not form.fits(cols):
        raise Bug(f"rows of {cols} in groups of {form.group}")
    size = form.group or cols
    codes = torch.empty(rows, cols, dtype=torch.uint8)
    scales = torch.empty(rows, cols // size, dtype=torch.float16)
    minima = torch.empty_like(scales) if form.asymmetrical else None
    counts = None if importance is None else importance.float().view(-1, size)

    @torch.inference_mode()
    def chunk(part: slice) -> None:
        groups = weight[part].float().reshape(-1, size)
        grid = fit(groups, form, groups.abs() if counts is None else counts.repeat(len(groups) // len(counts), 1))
        codes[part] = grid.codes(groups).view(-1, cols)
        scales[part] = grid.scales.view(-1, cols // size)
        if minima is not None:
            minima[part] = (grid.scales * grid.zeros).view(-1, cols // size)

    step = max(1, CHUNK // cols)
    _side_by_side(chunk, [slice(begin, begin + step) for begin in range(0, rows, step)])
    return Quantized(codes, scales, minima, form.bits)


def fit(groups: Tensor, form: WeightFormat, importance: Tensor | None = None) -> Grid:
    """The grid of least squared error (as far as is tried) for each of groups [groups, size]; `importance` has their shape."""
    starts = list(_starts(groups, form))
    if len(starts) == 1:
        ((inverse, zeros),) = starts
        return Grid(_float16(_inverse(inverse)), zeros, form.levels)
    best = torch.full_like(groups[:, :1], -1.0)
    scales, chosen = torch.zeros_like(best), torch.as_tensor(starts[0][1]).expand_as(best)
    for inverse, zeros in starts:
        scale, gain = _least_squares(groups, _rounded(groups, inverse, zeros, form.levels), importance)
        better = gain > best
        best, scales = torch.where(better, gain, best), torch.where(better, scale, scales)
        chosen = torch.where(better, zeros, chosen)
    scales, _ = _least_squares(groups, _rounded(groups, _inverse(scales), chosen, form.levels), importance)
    return Grid(_float16(scales), chosen if form.asymmetrical else starts[0][1], form.levels)


def _starts(groups: Tensor, form: WeightFormat) -> Iterator[tuple[Tensor, Tensor | float]]:
    """Inverse scales and zeros to try."""
    if form.asymmetrical:
        low, high = groups.amin(1, keepdim=True).clamp_(max=0.0), groups.amax(1, keepdim=True).clamp_(min=0.0)
        for shrink in _SHRINKS[: None if form.bits == 4 else 1]:
            inverse = form.levels * _inverse((high - low) * shrink)
            # A zero of 0 cannot be written to a GPTQ file, which stores zeros less one.
            yield inverse, (-low * shrink * inverse).round_().clamp_(1, form.levels)
        return
    zero = float(1 << (form.bits - 1))
    largest = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    if form.bits == 8:
        yield _inverse(largest.abs_()) * (zero - 1), zero
    else:
        for span in _SPANS_INT4:  # the largest becomes code 0: there is one more of them below the zero than above
            yield _inverse(largest) * -span, zero


def _rounded(groups: Tensor, inverse: Tensor, zeros: Tensor | float, levels: int) -> Tensor:
    """Codes less their zero."""
    steps = (groups * inverse).round_()
    if isinstance(zeros, float):
        return steps.clamp_(-zeros, levels - zeros)
    return torch.minimum(torch.maximum(steps, -zeros, out=steps), levels - zeros, out=steps)


def _least_squares(groups: Tensor, steps: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    """The scale of least squared error for these codes, and how much of the squared weights it explains."""
    weighed = steps if importance is None else steps * importance
    products = torch.linalg.vecdot(groups, weighed).unsqueeze_(1)
    scales = products / torch.linalg.vecdot(steps, weighed).unsqueeze_(1).clamp_(min=1e-30)
    return scales, products * scales


def _inverse(values: Tensor) -> Tensor:
    return torch.where(values == 0, 0.0, 1.0 / values)


def _float16(values: Tensor) -> Tensor:
    return values.half().float()


def _side_by_side(work: Callable[[slice], None], parts: list[slice]) -> None:
    """A part at a time on each thread. Torch's own threads would all meet after every short operation, and wait for the last."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)
