"""What a decoder needs to know of a model, independent of the file format it came from. Does not load torch.

`engine.models.table` makes a `ModelConfig` from a Hugging Face `config.json`; the GGUF and llama2.c readers make their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    import torch

Activation = Literal["silu", "gelu", "gelu_tanh"]


class LinearScaling(Struct, frozen=True, kw_only=True, tag="linear"):
    """Positions divided by `factor` (kaiokendev, 2023)."""

    factor: float


class DynamicScaling(Struct, frozen=True, kw_only=True, tag="dynamic"):
    """NTK-aware base that grows once the served context exceeds `max_position` tokens (bloc97 and emozilla, 2023)."""

    factor: float
    max_position: int


class Llama3Scaling(Struct, frozen=True, kw_only=True, tag="llama3"):
    """Low frequencies divided by `factor`, high ones kept, a smooth ramp between (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


class YarnScaling(Struct, frozen=True, kw_only=True, tag="yarn"):
    """Interpolation by parts (Peng et al., YaRN, arXiv:2309.00071). `attention_factor` multiplies cos and sin."""

    factor: float
    attention_factor: float
    original_max_position: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


class LongRopeScaling(Struct, frozen=True, kw_only=True, tag="longrope"):
    """One divisor per frequency (Ding et al., LongRoPE, arXiv:2402.13753): `long_factor` where the served context exceeds
    `original_max_position` tokens, else `short_factor`. Both equal expresses any fixed divisors (GGUF's `rope_freqs`).
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    attention_factor: float
    original_max_position: int


Scaling = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | LongRopeScaling


class Rope(Struct, frozen=True, kw_only=True):
    """Rotary position embedding of the first `dim` entries of each head, in halves: entry i turns with entry i + dim/2."""

    dim: int
    theta: float = 10_000.0
    scaling: Scaling | None = None


class MoE(Struct, frozen=True, kw_only=True):
    """Mixture of experts: each token goes to its `top_k` best of `num_experts`, weighted by the router's softmax.

    `renormalize` makes the chosen weights sum to one. `layers[i]` says whether layer i has experts or a dense MLP.
    """

    num_experts: int
    top_k: int
    intermediate_size: int
    renormalize: bool
    layers: tuple[bool, ...]


class ModelConfig(Struct, frozen=True, kw_only=True):
    """A decoder-only transformer, in full. Sizes are counts of elements, windows and positions are tokens."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rope: Rope
    windowed_rope: Rope | None = None  # of layers that have a window; None: `rope` for all
    windows: tuple[int | None, ...]  # per layer: each token sees itself and the window - 1 before it; None: all
    norm_eps: float = 1e-6
    activation: Activation = "silu"
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # RMS norm of each query and key head, before rope
    norm_offset: bool = False  # norm weights are stored as w - 1
    sandwich_norms: bool = False  # norms after attention and MLP too, before the residual is added
    attention_scale: float
    attention_softcap: float | None = None  # scores become cap * tanh(score / cap)
    logits_softcap: float | None = None
    logits_divisor: float = 1.0
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    moe: MoE | None = None
    eos_token_ids: tuple[int, ...] = ()

    @property
    def q_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def num_parameters(self) -> int:
        """All weights, each counted once: a tied output layer is the embedding."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.hidden_size + sum(self._layer_parameters(i) for i in range(self.num_layers))

    def kv_bytes_per_token(self, dtype: torch.dtype) -> int:
        """Bytes of keys and values that one token holds across all layers."""
        return 2 * self.num_layers * self.kv_size * dtype.itemsize

    def moe_of(self, layer: int) -> MoE | None:
        """The experts of layer `layer`; None: it has a dense MLP."""
        return self.moe if self.moe is not None and self.moe.layers[layer] else None

    def _layer_parameters(self, layer: int) -> int:
        norms = self.hidden_size * (4 if self.sandwich_norms else 2) + (2 * self.head_dim if self.qk_norm else 0)
        qkv = self.q_size + 2 * self.kv_size
        attention = self.hidden_size * (qkv + self.q_size) + (qkv if self.qkv_bias else 0) + (self.hidden_size if self.o_bias else 0)
        return norms + attention + self._mlp_parameters(layer)

    def _mlp_parameters(self, layer: int) -> int:
        if (moe := self.moe_of(layer)) is not None:
            return moe.num_experts * self.hidden_size * (1 + 3 * moe.intermediate_size)
        bias = 2 * self.intermediate_size + self.hidden_size if self.mlp_bias else 0
        return 3 * self.hidden_size * self.intermediate_size + bias
