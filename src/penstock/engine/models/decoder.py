"""The one decoder: a `ModelConfig` says which architecture it is.

    embedding ─► layers ─► norm ─► logits
    layer:  x ─► norm ─► qkv ─► (qk norm) ─► rope ─► attention ─► o ─► (norm) ─► + x
              ─► norm ─► MLP or experts ─────────────────────────────► (norm) ─► + x

What stands in parentheses, only some architectures have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.engine.kernels.kv import KVCache
from penstock.engine.kernels.protocol import Attention, AttentionInputs, AttentionKind, Experts, Kernels
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.rope import RotaryTable
from penstock.engine.models.weights import Layer, Weights


@dataclass(frozen=True, slots=True)
class _Step:
    """What all layers of one step share."""

    slots: Tensor
    attend: Attention
    rotations: dict[bool, tuple[Tensor, Tensor]]  # cos and sin, of layers with and without a window


class Decoder:
    """A loaded model. Holds its weights, and no state of any sequence: that is the `KVCache`, which the caller owns."""

    def __init__(self, config: ModelConfig, weights: Weights, kernels: Kernels, served_len: int) -> None:
        dtype, device = weights.dtype, weights.norm.device
        self.config = config
        self.pool = None  # torch's threads are its own affair
        self._weights, self._kernels = weights, kernels
        self._kinds = [AttentionKind(config.attention_scale, window, config.attention_softcap) for window in config.windows]
        ropes = {False: config.rope, True: config.windowed_rope or config.rope}
        self._rotary = {kind: RotaryTable(ropes[kind], served_len, dtype, device) for kind in {w is not None for w in config.windows}}
        self._embedding_multiplier = float(torch.tensor(config.embedding_multiplier, dtype=dtype))  # rounded, as it was in training

    @property
    def dtype(self) -> torch.dtype:
        return self._weights.dtype

    @property
    def device(self) -> torch.device:
        return self._weights.norm.device

    def allocate_kv(self, num_blocks: int, block_size: int) -> KVCache:
        """Zeroed room for `num_blocks * block_size` tokens, in the type of hidden states."""
        return KVCache.allocate(self.config, num_blocks, block_size, self.dtype, self.device)

    @torch.inference_mode()
    def forward(self, token_ids: Tensor, inputs: AttentionInputs, kv: KVCache) -> Tensor:
        """token_ids [tokens] int64 -> hidden states [tokens, hidden] for `logits`. Writes the tokens' keys and values to `kv`."""
        x = self._kernels.embed(token_ids, self._weights.embedding, self.dtype)
        if self._embedding_multiplier != 1.0:
            x = x * self._embedding_multiplier
        step = _Step(inputs.slots, self._kernels.plan(inputs, set(self.config.windows)), self._rotate(inputs.positions))
        for layer, kind, keys, values in zip(self._weights.layers, self._kinds, kv.keys, kv.values, strict=True):
            x = self._attention(x, layer, kind, step, (keys, values))
            x = self._mlp(x, layer)
        return self._kernels.rms_norm(x, self._weights.norm, self.config.norm_eps)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden], as `forward` gave them -> [rows, vocab] float32."""
        logits = self._kernels.linear(hidden, self._weights.head).float()
        if self.config.logits_divisor != 1.0:
            logits = logits / self.config.logits_divisor
        if self.config.logits_softcap is not None:
            logits = torch.tanh(logits / self.config.logits_softcap) * self.config.logits_softcap
        return logits

    def _rotate(self, positions: Tensor) -> dict[bool, tuple[Tensor, Tensor]]:
        return {windowed: table(positions) for windowed, table in self._rotary.items()}

    def _attention(self, x: Tensor, layer: Layer, kind: AttentionKind, step: _Step, cache: tuple[Tensor, Tensor]) -> Tensor:
        config, kernels = self.config, self._kernels
        normed = kernels.rms_norm(x, layer.attention_norm, config.norm_eps)
        heads = kernels.linear(normed, layer.qkv).view(len(x), -1, config.head_dim)
        queries, keys, values = torch.split(heads, [config.num_heads, config.num_kv_heads, config.num_kv_heads], dim=1)
        turned = heads[:, : config.num_heads + config.num_kv_heads]
        if layer.qk_norm is not None:
            turned.copy_(kernels.rms_norm(turned, layer.qk_norm, config.norm_eps))
        kernels.rope_(turned, *step.rotations[kind.window is not None])
        kernels.store_kv_(cache[0], step.slots, keys)
        kernels.store_kv_(cache[1], step.slots, values)
        attended = step.attend(queries, *cache, kind).reshape(len(x), config.q_size)
        return self._add(x, kernels.linear(attended, layer.o), layer.attention_out_norm)

    def _mlp(self, x: Tensor, layer: Layer) -> Tensor:
        normed = self._kernels.rms_norm(x, layer.mlp_norm, self.config.norm_eps)
        if isinstance(layer.mlp, Experts):
            update = self._kernels.moe(normed, layer.mlp, self.config.activation)
        else:
            update = self._kernels.gated_mlp(normed, layer.mlp, self.config.activation)
        return self._add(x, update, layer.mlp_out_norm)

    def _add(self, x: Tensor, update: Tensor, norm: Tensor | None) -> Tensor:
        if norm is not None:
            update = self._kernels.rms_norm(update, norm, self.config.norm_eps)
        return torch.add(x, update, alpha=self.config.residual_multiplier)
