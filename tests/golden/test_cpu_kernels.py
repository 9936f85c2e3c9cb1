"""The CPU's own routes through a matrix product give the reference's result."""

from __future__ import annotations

import pytest
import torch

from penstock.engine.kernels.cpu.eager import LARGE, CPUKernels
from penstock.engine.kernels.protocol import Linear
from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.kernels.select import best_kernels

OUTPUTS, INPUTS = 2003, 520


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_tokens", [1, 2, 3, 4, 17, 128, 130])
def test_large_products_equal_the_reference(num_tokens: int, dtype: torch.dtype, biased: bool) -> None:
    torch.manual_seed(0)
    linear = Linear(torch.randn(OUTPUTS, INPUTS, dtype=dtype), torch.randn(OUTPUTS, dtype=dtype) if biased else None)
    x = torch.randn(num_tokens, INPUTS, dtype=dtype)
    with torch.inference_mode():
        actual, expected = CPUKernels().linear(x, linear), ReferenceKernels().linear(x, linear)
    assert linear.weight.numel() >= LARGE  # the reference's own route is not what is tested
    assert actual.is_contiguous()
    tolerance = 1e-4 if dtype is torch.float32 else 0.5  # one bfloat16 step at the size of these sums
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=1e-4 if dtype is torch.float32 else 8e-3)


def test_each_device_has_kernels() -> None:
    assert isinstance(best_kernels("cpu"), CPUKernels)
    assert type(best_kernels("cuda")) is ReferenceKernels
