"""Rope settings of a Hugging Face `config.json`, in its old form (rope_theta, rope_scaling) and its new one (rope_parameters).

Does not load torch.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from penstock.core.errors import LoadError
from penstock.engine.models.config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rope,
    Scaling,
    YarnScaling,
)

TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


class RopeParameters(Struct, frozen=True, kw_only=True):
    """`rope_scaling`, or `rope_parameters` of one kind of layer."""

    rope_type: str | None = None
    type: str | None = None  # rope_type's old name
    rope_theta: float | None = None
    partial_rotary_factor: float | None = None
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    short_factor: tuple[float, ...] | None = None
    long_factor: tuple[float, ...] | None = None

    @property
    def kind(self) -> str:
        """Phi-3 has called longrope "su" and "yarn"; only longrope has a short_factor."""
        return "longrope" if self.short_factor is not None else self.rope_type or self.type or "default"


class RopeSource(Protocol):
    """The keys of config.json that decide the rope."""

    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def original_max_position_embeddings(self) -> int | None: ...
    @property
    def rope_theta(self) -> float | None: ...
    @property
    def rope_local_base_freq(self) -> float | None: ...
    @property
    def rope_scaling(self) -> RopeParameters | None: ...
    @property
    def rope_parameters(self) -> dict[str, Any] | None: ...
    @property
    def partial_rotary_factor(self) -> float: ...


def read_ropes(hf: RopeSource, head_dim: int) -> tuple[Rope, Rope | None]:
    """The model's rope, and that of its windowed layers where it differs."""
    new = hf.rope_parameters or {}
    if "full_attention" in new or "sliding_attention" in new:
        whole, windowed = _parse(new.get("full_attention")), _parse(new.get("sliding_attention"))
        return _rope(hf, whole, head_dim), _rope(hf, windowed, head_dim, theta=hf.rope_local_base_freq)
    rope = _rope(hf, _parse(new) if new else hf.rope_scaling or RopeParameters(), head_dim)
    if hf.rope_local_base_freq is None:
        return rope, None
    return rope, Rope(dim=rope.dim, theta=hf.rope_local_base_freq)


def _parse(raw: object) -> RopeParameters:
    try:
        return msgspec.convert(raw or {}, RopeParameters)
    except msgspec.ValidationError as error:
        raise LoadError(f"rope_parameters of config.json cannot be used: {error}") from error


def _rope(hf: RopeSource, params: RopeParameters, head_dim: int, theta: float | None = None) -> Rope:
    share = params.partial_rotary_factor or hf.partial_rotary_factor
    if not (0 < share <= 1 and (dim := int(head_dim * share + 1e-6)) > 0 and dim % 2 == 0):
        raise LoadError(f"config.json turns {share} of each head's {head_dim} entries: an even number, at most all, can turn")
    return Rope(dim=dim, theta=params.rope_theta or theta or hf.rope_theta or 10_000.0, scaling=_scaling(hf, params, dim))


def _scaling(hf: RopeSource, params: RopeParameters, dim: int) -> Scaling | None:
    original = hf.original_max_position_embeddings or params.original_max_position_embeddings or hf.max_position_embeddings
    match params.kind:
        case "default":
            return None
        case "linear":
            return LinearScaling(factor=_need(params, "factor"))
        case "dynamic":
            return DynamicScaling(factor=_need(params, "factor"), max_position=hf.max_position_embeddings)
        case "llama3":
            return Llama3Scaling(
                factor=_need(params, "factor"),
                low_freq_factor=_need(params, "low_freq_factor"),
                high_freq_factor=_need(params, "high_freq_factor"),
                original_max_position=original,
            )
        case "yarn":
            return _yarn(params, params.factor or hf.max_position_embeddings / original, original)
        case "longrope":
            return _longrope(params, params.factor or hf.max_position_embeddings / original, original, dim)
        case unknown:
            raise LoadError(f"rope type {unknown!r} is not supported", hint=f"supported: {', '.join(TYPES)}")


def _need(params: RopeParameters, name: str) -> float:
    value: float | None = getattr(params, name)
    if value is None:
        raise LoadError(f"config.json asks for rope type {params.kind} without its {name}")
    return value


def _yarn(params: RopeParameters, factor: float, original: int) -> YarnScaling:
    attention_factor = params.attention_factor
    if attention_factor is None and params.mscale and params.mscale_all_dim:
        attention_factor = _mscale(factor, params.mscale) / _mscale(factor, params.mscale_all_dim)
    return YarnScaling(
        factor=factor,
        attention_factor=_mscale(factor, 1.0) if attention_factor is None else attention_factor,
        original_max_position=original,
        beta_fast=params.beta_fast or 32.0,
        beta_slow=params.beta_slow or 1.0,
        truncate=params.truncate,
    )


def _mscale(factor: float, weight: float) -> float:
    """What YaRN multiplies attention by, so that its entropy stays the same over a longer context."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _longrope(params: RopeParameters, factor: float, original: int, dim: int) -> LongRopeScaling:
    short, long = params.short_factor or (), params.long_factor or ()
    for name, factors in (("short_factor", short), ("long_factor", long)):
        if len(factors) != dim // 2:
            raise LoadError(f"longrope's {name} has {len(factors)} entries, {dim // 2} are needed: one per rotated pair")
    attention_factor = params.attention_factor
    if attention_factor is None:
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return LongRopeScaling(short_factor=short, long_factor=long, attention_factor=attention_factor, original_max_position=original)
