"""The ways to quantize, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from penstock.engine.quant import awq, smoothquant
from penstock.engine.quant.formats import WeightFormat
from penstock.engine.quant.gptq import gptq
from penstock.engine.quant.inputs import Inputs
from penstock.engine.quant.quantized import Quantized
from penstock.engine.quant.rtn import round_to_nearest

Reach = Literal["none", "norms", "all"]


@dataclass(frozen=True, slots=True)
class Method:
    """`scales` are moved from a matrix's inputs into its columns, where what makes the inputs can be divided by them.

    `reach`: of no matrix, of those behind a norm, or of those behind another matrix, too. Then `codes` are chosen.
    """

    codes: Callable[[Tensor, Inputs, WeightFormat], Quantized]
    scales: Callable[[Tensor, Inputs, WeightFormat], Tensor] | None = None
    reach: Reach = "none"
    looks_at_floats: bool = False  # `Inputs.crossed` is wanted


def _nearest(weight: Tensor, inputs: Inputs, form: WeightFormat) -> Quantized:
    """Whatever the inputs are."""
    return round_to_nearest(weight, form)


CALIBRATED: Mapping[str, Method] = MappingProxyType(
    {
        "gptq": Method(gptq, looks_at_floats=True),
        "awq": Method(awq.awq, awq.scales, "all"),
        "smoothquant": Method(_nearest, smoothquant.scales, "norms"),
    }
)
