"""Muon (Jordan et al. 2024) for the matrices: momentum whose every direction is given the same length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(stack: Tensor, dtype: torch.dtype, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to a stack [n, rows, columns], by Newton-Schulz iteration."""
    a, b, c = QUINTIC
    x = stack.to(dtype)
    tall = x.shape[1] > x.shape[2]
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result.to(stack.dtype)


class Muon:
    """Steps all matrices of one shape together. Owns one momentum stack for each shape."""

    def __init__(self, matrices: Iterable[nn.Parameter], dtype: torch.dtype, decay: float = 0.02) -> None:
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            groups[matrix.shape].append(matrix)
        self.groups = list(groups.values())
        self.momenta = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.dtype, self.decay = dtype, decay

    @torch.no_grad()
    def step(self, rate: float, momentum: float = 0.95) -> None:
        """Move every matrix against its gradient by about ``rate`` in spectral norm."""
        for group, mean in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            mean.lerp_(gradient, 1 - momentum)
            update = orthogonalize(gradient.lerp(mean, momentum), self.dtype)
            rows, columns = group[0].shape
            scale = rate * max(1.0, rows / columns) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.mul_(1 - rate * self.decay).sub_(change, alpha=scale)
                matrix.grad = None
