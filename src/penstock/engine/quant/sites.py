"""Which matrices of a model are quantized, and what makes the inputs of each.

    attention norm ─► qkv ─► (attention) ─► o          MLP norm ─► gate-up ─► (gate) ─► down
                      └ rows of the values ┘                       └ rows of "up" ┘

Dividing what makes an input by a scale and multiplying the column by it changes nothing: a norm's weight, or the rows of the
matrix before that reach the input linearly. Several heads that share a value must share its scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from penstock.core.errors import UserError
from penstock.engine.kernels.protocol import Experts, Linear
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.weights import Layer, Weights


@dataclass(frozen=True, slots=True)
class Site:
    """One matrix, under the name that `models.weights` gives it. Its inputs come from `norm` or from `rows` of `source`."""

    name: str
    linear: Linear
    norm: str | None = None
    norm_weight: Tensor | None = None
    source: str | None = None
    rows: slice | None = None
    heads: tuple[int, int, int] | None = None  # of the inputs: kv heads, heads that share one, dimensions


def sites(config: ModelConfig, weights: Weights) -> Iterator[Site]:
    """All matrices of the layers, in the order in which they are used. UserError for a model with experts."""
    for index, layer in enumerate(weights.layers):
        yield from _layer(config, layer, f"model.layers.{index}.")


def _layer(config: ModelConfig, layer: Layer, prefix: str) -> Iterator[Site]:
    if isinstance(layer.mlp, Experts):
        raise UserError("mixture-of-experts models cannot be quantized ahead yet", hint="serve it as it is, or a GGUF file of it")
    qkv, gate_up = f"{prefix}self_attn.qkv_proj.weight", f"{prefix}mlp.gate_up_proj.weight"
    attention_norm, mlp_norm = f"{prefix}input_layernorm.weight", f"{prefix}post_attention_layernorm.weight"
    if config.sandwich_norms:
        mlp_norm = f"{prefix}pre_feedforward_layernorm.weight"
    heads = (config.num_kv_heads, config.num_heads // config.num_kv_heads, config.head_dim)
    values = slice(config.q_size + config.kv_size, None)
    yield Site(qkv, layer.qkv, attention_norm, layer.attention_norm)
    yield Site(f"{prefix}self_attn.o_proj.weight", layer.o, source=qkv, rows=values, heads=heads)
    yield Site(gate_up, layer.mlp.gate_up, mlp_norm, layer.mlp_norm)
    yield Site(f"{prefix}mlp.down_proj.weight", layer.mlp.down, source=gate_up, rows=slice(config.intermediate_size, None))
