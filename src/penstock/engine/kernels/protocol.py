"""What a decoder asks of its arithmetic. `kernels.reference` is the oracle that every other implementation is tested against."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from penstock.engine.kernels.cpu.packed import Packed
from penstock.engine.models.config import Activation
from penstock.engine.quant.quantized import Quantized

Weight = Tensor | Quantized | Packed  # [outputs, inputs]; packed ones are for the native kernels


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """One step: which tokens of which sequences are computed, and where their keys and values live. Shared by all layers.

    Tokens of one sequence are consecutive, in the order of the sequences. Lengths are plain ints, so that no step waits for the device.
    """

    query_lens: list[int]  # per sequence, >= 1: tokens computed in this step
    context_lens: list[int]  # per sequence: tokens whose keys are in the cache once this step has stored its own
    block_tables: Tensor  # [seqs, max_blocks] int64 block ids, padded with 0
    slots: Tensor  # [tokens] int64: flat KV slot of each token of this step
    positions: Tensor  # [tokens] int64: position of each token in its sequence
    block_size: int
    lens: Tensor | None = None  # [2, seqs or more] int64: both lengths once more, for native code; in memory of the CPU


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """What distinguishes the attention of one layer from another's."""

    scale: float
    window: int | None = None  # each token sees itself and the window - 1 before it; None: all
    softcap: float | None = None  # scores become cap * tanh(score / cap)


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x W^T + b."""

    weight: Weight  # [outputs, inputs]
    bias: Tensor | None = None  # [outputs]


@dataclass(frozen=True, slots=True)
class GatedMLP:
    """y = down(activation(gate(x)) * up(x))."""

    gate_up: Linear  # outputs: the gate's, then the up projection's
    down: Linear


@dataclass(frozen=True, slots=True)
class Experts:
    """One layer's mixture of experts: each token goes to its `top_k` best, weighted by the router's softmax."""

    router: Tensor  # [experts, hidden]
    mlps: list[GatedMLP]  # all of one shape
    top_k: int
    renormalize: bool  # the chosen weights are made to sum to one


class Attention(Protocol):
    """Attention of one step, with all that its layers share computed already."""

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, kind: AttentionKind) -> Tensor:
        """queries [tokens, heads, head_dim] against one layer's cache (`KVCache`) -> [tokens, heads, head_dim]."""
        ...


class Kernels(Protocol):
    """The arithmetic. Methods whose name ends in _ write into their first argument; no other does."""

    def plan(self, inputs: AttentionInputs, windows: Collection[int | None]) -> Attention:
        """The attention of one step, for layers with any of these windows."""
        ...

    def embed(self, token_ids: Tensor, embedding: Weight, dtype: torch.dtype) -> Tensor:
        """Rows token_ids [tokens] of embedding [vocab, hidden] -> [tokens, hidden] in `dtype`."""
        ...

    def store_kv_(self, cache: Tensor, slots: Tensor, heads: Tensor) -> None:
        """Write heads [tokens, kv_heads, head_dim] to cache [slots, kv_heads, head_dim] at slots [tokens]."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight over the last axis, in float32; weight [size], or broadcastable to x."""
        ...

    def rope_(self, heads: Tensor, cos: Tensor, sin: Tensor) -> None:
        """Turn the first entries of heads [tokens, heads, head_dim]; cos and sin [tokens, 1, dim] as `models.rope` makes them."""
        ...

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        """x [tokens, inputs] -> [tokens, outputs]."""
        ...

    def gated_mlp(self, x: Tensor, mlp: GatedMLP, activation: Activation) -> Tensor:
        """x [tokens, hidden] -> [tokens, hidden]."""
        ...

    def moe(self, x: Tensor, experts: Experts, activation: Activation) -> Tensor:
        """x [tokens, hidden] -> [tokens, hidden]."""
        ...
