"""AWQ (Lin et al., arXiv:2306.00978): columns with large inputs are scaled up before they are rounded, so that they lose less.

The scale of an input channel is typical |x| to some power, the same for a whole matrix; the power is found by trying. What
makes the inputs is divided by the scales, so the model stays the same but for rounding. The paper's second search, for where
to cut the weights of each group, is what rounding to nearest does here anyway, with squared errors weighed by the inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.inputs import Inputs
from penstock.engine.quant.quantized import Quantized
from penstock.engine.quant.rtn import round_to_nearest

POWERS = tuple(i / 20 for i in range(20))


@torch.inference_mode()
def scales(weight: Tensor, inputs: Inputs, form: WeightFormat) -> Tensor:
    """[cols] by which to multiply the columns of weight [rows, cols], and to divide its inputs."""
    candidates = [_normalized(inputs.typical.clamp(min=1e-4 * float(inputs.typical.max()) + 1e-30).pow(power)) for power in POWERS]
    return min(candidates, key=lambda scales: _loss(weight, inputs, form, scales))


def awq(weight: Tensor, inputs: Inputs, form: WeightFormat) -> Quantized:
    """Codes of a matrix whose columns have been scaled."""
    return round_to_nearest(weight, form, inputs.importance)


def _normalized(scales: Tensor) -> Tensor:
    """Around 1, so that norms and weights keep their size."""
    return scales / (scales.max() * scales.min()).sqrt()


def _loss(weight: Tensor, inputs: Inputs, form: WeightFormat, scales: Tensor) -> float:
    scaled = awq(weight * scales, inputs.divided(scales), form)
    return inputs.loss(scaled.dequantize() / scales - weight)
