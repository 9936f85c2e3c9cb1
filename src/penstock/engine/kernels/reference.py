"""`Kernels` in plain torch, on any device: the oracle.

Batched throughout: a step makes a handful of torch calls per layer, however many sequences it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock.engine.kernels.paged import PagedAttention
from penstock.engine.kernels.protocol import Attention, AttentionInputs, Experts, GatedMLP, Linear, Weight
from penstock.engine.models.config import Activation


class ReferenceKernels:
    """Stateless: one instance serves any number of models."""

    def plan(self, inputs: AttentionInputs, windows: Collection[int | None]) -> Attention:
        return PagedAttention(inputs, windows)

    def embed(self, token_ids: Tensor, embedding: Weight, dtype: torch.dtype) -> Tensor:
        rows = embedding.index_select(0, token_ids) if isinstance(embedding, Tensor) else embedding.rows(token_ids)
        return _floats(rows, dtype)

    def store_kv_(self, cache: Tensor, slots: Tensor, heads: Tensor) -> None:
        cache.index_copy_(0, slots, heads)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], None, eps).mul_(weight).to(x.dtype)

    def rope_(self, heads: Tensor, cos: Tensor, sin: Tensor) -> None:
        turned = heads[..., : cos.shape[-1]]
        first, second = turned.chunk(2, dim=-1)
        swapped = torch.cat((second, first), dim=-1)
        turned.mul_(cos).addcmul_(swapped, sin)

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return F.linear(x, _floats(linear.weight, x.dtype), linear.bias)

    def gated_mlp(self, x: Tensor, mlp: GatedMLP, activation: Activation) -> Tensor:
        return self.linear(_gate(self.linear(x, mlp.gate_up), activation), mlp.down)

    def moe(self, x: Tensor, experts: Experts, activation: Activation) -> Tensor:
        """Tokens are sorted by expert, so that each expert in use runs once on all of its tokens (one device sync per layer)."""
        weights, chosen = self._route(x, experts)  # [tokens, top_k]
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=len(experts.router)).tolist()
        groups = torch.split(x[order // experts.top_k], counts)
        used = [self.gated_mlp(group, mlp, activation) for group, mlp in zip(groups, experts.mlps, strict=True) if len(group)]
        outputs = torch.empty_like(x).repeat(experts.top_k, 1).index_copy_(0, order, torch.cat(used))
        return (outputs.view(len(x), experts.top_k, -1) * weights.unsqueeze(-1)).sum(dim=1)

    def _route(self, x: Tensor, experts: Experts) -> tuple[Tensor, Tensor]:
        weights, chosen = F.linear(x, experts.router).softmax(dim=-1, dtype=torch.float32).topk(experts.top_k, dim=-1)
        if experts.renormalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights.to(x.dtype), chosen


def _floats(weight: Weight, dtype: torch.dtype) -> Tensor:
    return (weight if isinstance(weight, Tensor) else weight.dequantize()).to(dtype)


def _gate(gate_up: Tensor, activation: Activation) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return _activation(activation)(gate).mul_(up)


def _activation(name: Activation) -> Callable[[Tensor], Tensor]:
    match name:
        case "silu":
            return F.silu
        case "gelu":
            return F.gelu
        case "gelu_tanh":
            return partial(F.gelu, approximate="tanh")
