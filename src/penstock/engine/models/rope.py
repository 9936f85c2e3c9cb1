"""Rotary position embedding: frequencies under each scaling, and the cosines and sines of a step's positions.

Scaling that depends on the context length (dynamic, longrope) is settled once, by the longest context that is served: a
token's key never depends on how its prompt was cut into chunks, on a cached prefix or on what runs beside it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from penstock.engine.models.config import DynamicScaling, LinearScaling, Llama3Scaling, LongRopeScaling, Rope, YarnScaling


class RotaryTable:
    """Cosines and sines for any positions; float32 throughout, rounded to `dtype` at the end."""

    def __init__(self, rope: Rope, served_len: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self._frequencies = frequencies(rope, served_len).to(device)
        self._factor = attention_factor(rope)
        self._dtype = dtype

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [tokens] -> cos, sin [tokens, 1, dim]; the first half of sin is negated, ready for swapped halves."""
        angles = positions.unsqueeze(-1).float() * self._frequencies
        cos, sin = angles.cos().mul_(self._factor), angles.sin().mul_(self._factor)
        tables = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        return tables[0].to(self._dtype).unsqueeze(1), tables[1].to(self._dtype).unsqueeze(1)


def attention_factor(rope: Rope) -> float:
    """What cosines and sines are multiplied by."""
    return rope.scaling.attention_factor if isinstance(rope.scaling, YarnScaling | LongRopeScaling) else 1.0


def frequencies(rope: Rope, served_len: int) -> Tensor:
    """Radians per position, [dim / 2] float32, when contexts of up to `served_len` tokens are served."""
    exponents = torch.arange(0, rope.dim, 2, dtype=torch.float32) / rope.dim
    periods: Tensor = rope.theta**exponents
    match rope.scaling:
        case None:
            return 1.0 / periods
        case LinearScaling(factor=factor):
            return 1.0 / periods / factor
        case DynamicScaling(factor=factor, max_position=limit):
            growth = factor * max(served_len, limit) / limit - (factor - 1)
            base = rope.theta * growth ** (rope.dim / (rope.dim - 2))
            return torch.reciprocal(base**exponents)
        case LongRopeScaling() as scaling:
            divisors = scaling.long_factor if served_len > scaling.original_max_position else scaling.short_factor
            return 1.0 / (torch.tensor(divisors, dtype=torch.float32) * periods)
        case Llama3Scaling() as scaling:
            return _llama3(1.0 / periods, scaling)
        case YarnScaling() as scaling:
            return _yarn(rope, scaling, periods)


def _llama3(base: Tensor, scaling: Llama3Scaling) -> Tensor:
    rotations = scaling.original_max_position * base / (2 * math.pi)  # of each frequency within the original context
    kept = ((rotations - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)).clamp(0, 1)
    return (1 - kept) * base / scaling.factor + kept * base


def _yarn(rope: Rope, scaling: YarnScaling, periods: Tensor) -> Tensor:
    low, high = (_yarn_dimension(rope, scaling, rotations) for rotations in (scaling.beta_fast, scaling.beta_slow))
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    ramp = (torch.arange(rope.dim // 2, dtype=torch.float32) - low) / (high - low if high != low else 0.001)
    interpolated = ramp.clamp(0, 1)
    return interpolated / (scaling.factor * periods) + (1 - interpolated) / periods


def _yarn_dimension(rope: Rope, scaling: YarnScaling, rotations: float) -> float:
    """The dimension that turns `rotations` times within the original context."""
    return rope.dim * math.log(scaling.original_max_position / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))
