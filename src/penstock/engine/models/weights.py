"""A model's weights in memory, and which tensors of a checkpoint each of them is made of.

    q_proj ──┐
    k_proj ──┼─► one fused qkv matrix        gate_proj ──┬─► one fused gate_up matrix
    v_proj ──┘                               up_proj   ──┘

`arrange` is the one description of a model's weights. It is walked twice: once to learn what is needed (`needs`), and
once to put what `assembly` has collected in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from penstock.engine.kernels.protocol import Experts, GatedMLP, Linear, Weight
from penstock.engine.models.config import ModelConfig, MoE
from penstock.engine.models.table import Naming, naming_of
from penstock.engine.quant.formats import WeightFormat

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. Norm weights are float32 and complete: an offset was added when they were loaded."""

    attention_norm: Tensor
    qkv: Linear  # outputs: queries, keys, values
    qk_norm: Tensor | None  # [heads + kv_heads, head_dim]: the query norm for each head, then the key norm
    o: Linear
    attention_out_norm: Tensor | None
    mlp_norm: Tensor
    mlp: GatedMLP | Experts
    mlp_out_norm: Tensor | None


@dataclass(frozen=True, slots=True)
class Weights:
    """All of a model's parameters; `head.weight` is `embedding` itself where the two are tied."""

    embedding: Weight  # [vocab, hidden]
    layers: list[Layer]
    norm: Tensor  # [hidden]
    head: Linear
    dtype: torch.dtype  # of hidden states


Kind = Literal["matrix", "router", "bias", "norm"]


@dataclass(frozen=True, slots=True)
class Whole:
    """One weight of a model: tensors of the checkpoint, one below the other, seen as `shape`.

    A `matrix` may be in few bits. A `router` of experts is in the model's float type, a `bias` too; a `norm` is always
    float32 and has `offset` added to it.
    """

    name: str  # as the checkpoint would call it, if it were not in parts
    kind: Kind
    parts: Mapping[str, tuple[int, ...]]  # shapes by name
    shape: tuple[int, ...]
    offset: float = 0.0

    @property
    def size(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


class Header(NamedTuple):
    """What is known of a tensor of a checkpoint before it is read."""

    shape: tuple[int, ...]
    format: torch.dtype | WeightFormat


class Source(Protocol):
    """Gives each weight as it is asked for."""

    def matrix(self, whole: Whole) -> Weight: ...
    def tensor(self, whole: Whole) -> Tensor: ...


def arrange(config: ModelConfig, source: Source, dtype: torch.dtype) -> Weights:
    """The weights of `config`, each from `source`; hidden states will be of `dtype`."""
    return _Arrangement(config, source).weights(dtype)


def needs(config: ModelConfig) -> list[Whole]:
    """All that `arrange` asks for."""
    asked = _Asked()
    arrange(config, asked, torch.float32)
    return asked.wholes


def canonical_name(config: ModelConfig, naming: Naming, name: str) -> str:
    """The name of a tensor in `needs`. Tied weights come under the one name, the other or both."""
    name = naming.canonical(name)
    return EMBEDDING if config.tie_word_embeddings and name == HEAD else name


class _Asked:
    """A source of weights without numbers, which remembers what it was asked for."""

    def __init__(self) -> None:
        self.wholes: list[Whole] = []

    def tensor(self, whole: Whole) -> Tensor:
        self.wholes.append(whole)
        return torch.empty(whole.shape, device="meta")

    matrix = tensor


class _Arrangement:
    def __init__(self, config: ModelConfig, source: Source) -> None:
        self._config, self._source = config, source
        self._naming = naming_of(config.architecture)

    def weights(self, dtype: torch.dtype) -> Weights:
        config = self._config
        shape = (config.vocab_size, config.hidden_size)
        embedding = self._source.matrix(Whole(EMBEDDING, "matrix", {EMBEDDING: shape}, shape))
        layers = [self._layer(i) for i in range(config.num_layers)]
        norm = self._norm("model.norm")
        head = Linear(embedding) if config.tie_word_embeddings else self._linear("", "lm_head", {}, *shape)
        return Weights(embedding, layers, norm, head, dtype)

    def _layer(self, index: int) -> Layer:
        config, prefix = self._config, f"model.layers.{index}."
        sandwich, moe = config.sandwich_norms, config.moe_of(index)
        return Layer(
            attention_norm=self._norm(f"{prefix}input_layernorm"),
            qkv=self._qkv(f"{prefix}self_attn."),
            qk_norm=self._qk_norm(f"{prefix}self_attn.") if config.qk_norm else None,
            o=self._linear(f"{prefix}self_attn.", "o_proj", {}, config.hidden_size, config.q_size, config.o_bias),
            attention_out_norm=self._norm(f"{prefix}post_attention_layernorm") if sandwich else None,
            mlp_norm=self._norm(f"{prefix}{'pre_feedforward_layernorm' if sandwich else 'post_attention_layernorm'}"),
            mlp=self._mlp(f"{prefix}mlp.") if moe is None else self._experts(f"{prefix}{self._naming.moe}.", moe),
            mlp_out_norm=self._norm(f"{prefix}post_feedforward_layernorm") if sandwich else None,
        )

    def _qkv(self, prefix: str) -> Linear:
        config = self._config
        parts = {"q_proj": config.q_size, "k_proj": config.kv_size, "v_proj": config.kv_size}
        return self._linear(prefix, "qkv_proj", parts, sum(parts.values()), config.hidden_size, config.qkv_bias)

    def _qk_norm(self, prefix: str) -> Tensor:
        config, offset = self._config, self._norm_offset
        size = config.head_dim
        norms = {f"{prefix}q_norm.weight": config.num_heads, f"{prefix}k_norm.weight": config.num_kv_heads}
        each = [self._source.tensor(Whole(name, "norm", {name: (size,)}, (size,), offset)).expand(n, size) for name, n in norms.items()]
        return torch.cat(each)

    def _mlp(self, prefix: str) -> GatedMLP:
        config = self._config
        hidden, inner = config.hidden_size, config.intermediate_size
        gate_up = self._linear(prefix, "gate_up_proj", {"gate_proj": inner, "up_proj": inner}, 2 * inner, hidden, config.mlp_bias)
        return GatedMLP(gate_up, self._linear(prefix, "down_proj", {}, hidden, inner, config.mlp_bias))

    def _experts(self, prefix: str, moe: MoE) -> Experts:
        hidden, inner, naming = self._config.hidden_size, moe.intermediate_size, self._naming
        router, shape = f"{prefix}gate.weight", (moe.num_experts, hidden)
        mlps = [
            GatedMLP(
                self._linear(f"{prefix}experts.{i}.", "gate_up_proj", {naming.gate: inner, naming.up: inner}, 2 * inner, hidden),
                self._linear(f"{prefix}experts.{i}.", naming.down, {}, hidden, inner),
            )
            for i in range(moe.num_experts)
        ]
        return Experts(self._source.tensor(Whole(router, "router", {router: shape}, shape)), mlps, moe.top_k, moe.renormalize)

    def _linear(self, prefix: str, name: str, parts: Mapping[str, int], rows: int, inputs: int, has_bias: bool = False) -> Linear:
        """`parts` are the projections and their rows, which `name` fuses; many checkpoints have them fused already, or there are none."""
        rows_of = {name: rows} if self._naming.fused or not parts else parts
        weights = {f"{prefix}{part}.weight": (count, inputs) for part, count in rows_of.items()}
        weight = self._source.matrix(Whole(f"{prefix}{name}.weight", "matrix", weights, (rows, inputs)))
        if not has_bias:
            return Linear(weight)
        biases = {f"{prefix}{part}.bias": (count,) for part, count in rows_of.items()}
        return Linear(weight, self._source.tensor(Whole(f"{prefix}{name}.bias", "bias", biases, (rows,))))

    def _norm(self, name: str) -> Tensor:
        name, shape = f"{name}.weight", (self._config.hidden_size,)
        return self._source.tensor(Whole(name, "norm", {name: shape}, shape, self._norm_offset))

    @property
    def _norm_offset(self) -> float:
        return 1.0 if self._config.norm_offset else 0.0
