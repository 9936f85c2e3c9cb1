"""A model's weights in memory, and where each tensor of a checkpoint goes.

    q_proj ──┐
    k_proj ──┼─► one fused qkv matrix        gate_proj ──┬─► one fused gate_up matrix
    v_proj ──┘                               up_proj   ──┘

Every tensor is copied once, from the (memory-mapped) checkpoint straight to its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.core.errors import LoadError
from penstock.engine.kernels.protocol import Experts, GatedMLP, Linear
from penstock.engine.models.config import ModelConfig, MoE
from penstock.engine.models.table import naming_of

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all


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

    embedding: Tensor  # [vocab, hidden]
    layers: list[Layer]
    norm: Tensor  # [hidden]
    head: Linear


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor goes: `target` has the tensor's shape, or repeats it along leading axes. `offset` is added to it."""

    target: Tensor
    shape: tuple[int, ...]
    offset: float = 0.0


class Room:
    """Allocates a model's weights, uninitialized, and remembers the place of each tensor by its name in the checkpoint."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device | str) -> None:
        self._config, self._dtype, self._device = config, dtype, device
        self._naming = naming_of(config.architecture)
        self.places: dict[str, Place] = {}
        self.weights = self._weights()

    def fill(self, tensors: Iterable[tuple[str, Tensor]], progress: Progress) -> None:
        """Copy every tensor to its place. LoadError when one is missing, unknown, misshaped or not a float."""
        empty, unknown = dict(self.places), []
        total = sum(place.target.nbytes for place in self.places.values())
        done = 0
        for name, tensor in tensors:
            name = self._canonical(name)
            if name in empty:
                place = empty.pop(name)
                _copy(name, tensor, place)
                progress("weights", done := done + place.target.nbytes, total)
            elif name not in self.places and not self._naming.is_ignored(name):
                unknown.append(name)
        _check_complete(self._config.architecture, list(empty), unknown)

    def _canonical(self, name: str) -> str:
        """Tied weights come under the one name, the other or both."""
        name = self._naming.canonical(name)
        return "model.embed_tokens.weight" if self._config.tie_word_embeddings and name == "lm_head.weight" else name

    def _weights(self) -> Weights:
        config = self._config
        embedding = self._empty(config.vocab_size, config.hidden_size)
        self._place("model.embed_tokens.weight", embedding)
        layers = [self._layer(i) for i in range(config.num_layers)]
        norm = self._norm("model.norm")
        if config.tie_word_embeddings:
            return Weights(embedding, layers, norm, Linear(embedding))
        return Weights(embedding, layers, norm, self._linear("", {"lm_head": config.vocab_size}, config.hidden_size))

    def _layer(self, index: int) -> Layer:
        config, prefix = self._config, f"model.layers.{index}."
        sandwich, moe = config.sandwich_norms, config.moe_of(index)
        return Layer(
            attention_norm=self._norm(f"{prefix}input_layernorm"),
            qkv=self._qkv(f"{prefix}self_attn."),
            qk_norm=self._qk_norm(f"{prefix}self_attn.") if config.qk_norm else None,
            o=self._linear(f"{prefix}self_attn.", {"o_proj": config.hidden_size}, config.q_size, config.o_bias),
            attention_out_norm=self._norm(f"{prefix}post_attention_layernorm") if sandwich else None,
            mlp_norm=self._norm(f"{prefix}{'pre_feedforward_layernorm' if sandwich else 'post_attention_layernorm'}"),
            mlp=self._mlp(f"{prefix}mlp.") if moe is None else self._experts(f"{prefix}{self._naming.moe}.", moe),
            mlp_out_norm=self._norm(f"{prefix}post_feedforward_layernorm") if sandwich else None,
        )

    def _qkv(self, prefix: str) -> Linear:
        config = self._config
        rows = {"q_proj": config.q_size, "k_proj": config.kv_size, "v_proj": config.kv_size}
        return self._linear(prefix, {"qkv_proj": sum(rows.values())} if self._naming.fused else rows, config.hidden_size, config.qkv_bias)

    def _qk_norm(self, prefix: str) -> Tensor:
        config = self._config
        weight = torch.empty(config.num_heads + config.num_kv_heads, config.head_dim, device=self._device)
        self._place_norm(f"{prefix}q_norm.weight", weight[: config.num_heads])
        self._place_norm(f"{prefix}k_norm.weight", weight[config.num_heads :])
        return weight

    def _mlp(self, prefix: str) -> GatedMLP:
        config = self._config
        rows = {"gate_proj": config.intermediate_size, "up_proj": config.intermediate_size}
        rows = {"gate_up_proj": sum(rows.values())} if self._naming.fused else rows
        gate_up = self._linear(prefix, rows, config.hidden_size, config.mlp_bias)
        return GatedMLP(gate_up, self._linear(prefix, {"down_proj": config.hidden_size}, config.intermediate_size, config.mlp_bias))

    def _experts(self, prefix: str, moe: MoE) -> Experts:
        hidden, inner, naming = self._config.hidden_size, moe.intermediate_size, self._naming
        router = self._empty(moe.num_experts, hidden)
        gate_up, down = self._empty(moe.num_experts, 2 * inner, hidden), self._empty(moe.num_experts, hidden, inner)
        self._place(f"{prefix}gate.weight", router)
        for expert in range(moe.num_experts):
            self._place(f"{prefix}experts.{expert}.{naming.gate}.weight", gate_up[expert, :inner])
            self._place(f"{prefix}experts.{expert}.{naming.up}.weight", gate_up[expert, inner:])
            self._place(f"{prefix}experts.{expert}.{naming.down}.weight", down[expert])
        return Experts(router, gate_up, down, moe.top_k, moe.renormalize)

    def _linear(self, prefix: str, rows: Mapping[str, int], inputs: int, has_bias: bool = False) -> Linear:
        """One matrix whose output rows are the named projections, in order."""
        weight = self._empty(sum(rows.values()), inputs)
        bias = self._empty(sum(rows.values())) if has_bias else None
        sizes = list(rows.values())
        for name, part in zip(rows, torch.split(weight, sizes), strict=True):
            self._place(f"{prefix}{name}.weight", part)
        for name, part in zip(rows, torch.split(bias, sizes), strict=True) if bias is not None else ():
            self._place(f"{prefix}{name}.bias", part)
        return Linear(weight, bias)

    def _norm(self, name: str) -> Tensor:
        weight = torch.empty(self._config.hidden_size, device=self._device)
        self._place_norm(f"{name}.weight", weight)
        return weight

    def _place_norm(self, name: str, target: Tensor) -> None:
        self.places[name] = Place(target, (target.shape[-1],), offset=1.0 if self._config.norm_offset else 0.0)

    def _place(self, name: str, target: Tensor) -> None:
        self.places[name] = Place(target, tuple(target.shape))

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self._dtype, device=self._device)


def _copy(name: str, tensor: Tensor, place: Place) -> None:
    if tuple(tensor.shape) != place.shape:
        raise LoadError(
            f"tensor {name} has shape {list(tensor.shape)}, its config asks for {list(place.shape)}",
            hint="the weights and the config do not belong together: get both from one place",
        )
    if not tensor.is_floating_point():
        raise LoadError(f"tensor {name} has type {tensor.dtype}", hint="quantized checkpoints are not supported: use a float one, or GGUF")
    place.target.copy_(tensor)
    if place.offset:
        place.target.add_(place.offset)


def _check_complete(architecture: str, missing: list[str], unknown: list[str]) -> None:
    problems = [f"{len(names)} tensors {what} ({_some(names)})" for names, what in ((missing, "missing"), (unknown, "unknown")) if names]
    if problems:
        raise LoadError(
            f"the weights do not fit architecture {architecture}: {', '.join(problems)}",
            hint="the download may be incomplete, or the checkpoint may hold another model than its config says",
        )


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
