"""What a model's weights will take, from the headers of its files: nothing is read, and nothing is guessed from parameter counts.

Follows `assembly` step by step, with formats instead of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from math import gcd

import torch

from penstock.engine.models.config import ModelConfig
from penstock.engine.models.table import naming_of
from penstock.engine.models.weights import EMBEDDING, HEAD, Header, Whole, canonical_name, needs
from penstock.engine.quant.formats import HEAD as HEAD_FORMAT
from penstock.engine.quant.formats import WeightFormat

Format = torch.dtype | WeightFormat


@dataclass(frozen=True, slots=True)
class Target:
    """What float matrices become: those of layers `layers`, embedding and output layer `HEAD_FORMAT`. None: layers stay as they are."""

    layers: WeightFormat | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of weights in the form that `assembly.Form` describes, where `target` is what `quantize` makes of float matrices."""

    dtype: torch.dtype | None
    few_bits: bool = True
    target: Target | None = None

    def of(self, config: ModelConfig, headers: Mapping[str, Header]) -> int:
        """`headers` are those of the checkpoint's tensors. What is missing counts as if it were float32."""
        naming = naming_of(config.architecture)
        known = {canonical_name(config, naming, name): header for name, header in headers.items()}
        return sum(self._whole(whole, known) for whole in needs(config))

    def _whole(self, whole: Whole, headers: Mapping[str, Header]) -> int:
        if whole.kind == "norm":
            return whole.size * torch.float32.itemsize
        if whole.kind != "matrix":
            return whole.size * (self.dtype or torch.float32).itemsize
        formats = [self._part(name, shape, headers.get(name)) for name, shape in whole.parts.items()]
        few = [form for form in formats if isinstance(form, WeightFormat)]
        if self.few_bits and len(few) == len(formats):
            return _few_bits_bytes(few, whole)
        floats = [torch.float16 if isinstance(form, WeightFormat) else form for form in formats]
        return whole.size * (self.dtype or reduce(torch.promote_types, floats)).itemsize

    def _part(self, name: str, shape: tuple[int, ...], header: Header | None) -> Format:
        stored = torch.float32 if header is None else header.format
        if isinstance(stored, WeightFormat):
            return stored
        return format_for(name, shape[1], self.target) or stored


def format_for(name: str, cols: int, target: Target | None) -> WeightFormat | None:
    """The format of a float matrix in a model quantized to `target`; None where it stays as it is, perhaps since its rows do not divide."""
    if target is None:
        return None
    chosen = HEAD_FORMAT if name in (EMBEDDING, HEAD) else target.layers
    return chosen if chosen is not None and chosen.fits(cols) else None


def _few_bits_bytes(formats: list[WeightFormat], whole: Whole) -> int:
    """Of the parts of one matrix, in the form that `fuse` finds for them all."""
    cols = whole.shape[1]
    bits = max(form.bits for form in formats)
    group = gcd(*(form.group or cols for form in formats))
    scales = 2 * whole.size // group
    return whole.size * bits // 8 + (2 * scales if any(form.asymmetrical for form in formats) else scales)
