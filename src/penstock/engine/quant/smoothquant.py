"""SmoothQuant (Xiao et al., arXiv:2211.10438): outliers of the inputs are moved into the weights, which bear them better.

For formats with one scale for a whole row, where the kernels give one scale to each token's whole row of inputs, too: there a
single channel that is a hundred times larger than the others leaves these with a code or two.
"""

from __future__ import annotations

from torch import Tensor

from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.inputs import Inputs

STRENGTH = 0.5  # 0: the weights stay as they are; 1: the inputs all become equally large


def scales(weight: Tensor, inputs: Inputs, form: WeightFormat) -> Tensor:
    """[cols] by which to multiply the columns of weight [rows, cols], and to divide its inputs."""
    columns = weight.float().abs().amax(0)
    found = inputs.largest.clamp(min=1e-5).pow(STRENGTH) / columns.clamp(min=1e-5).pow(1 - STRENGTH)
    return found / found.log().mean().exp()
