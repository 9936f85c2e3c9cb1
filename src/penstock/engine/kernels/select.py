"""Which implementation runs where."""

from __future__ import annotations

import torch

from penstock.engine.kernels.cpu.eager import CPUKernels
from penstock.engine.kernels.protocol import Kernels
from penstock.engine.kernels.reference import ReferenceKernels


def best_kernels(device: torch.device | str) -> Kernels:
    """The fastest kernels for `device` that this build of torch has."""
    if torch.device(device).type == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return CPUKernels()
    return ReferenceKernels()
