"""Architectures as rows: Hugging Face's `config.json` to `ModelConfig`. Does not load torch.

A row says what its architecture assumes where `config.json` is silent, and how its tensors are called. All else is read
the same way for every row. A setting that would change the result and is not supported is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from penstock.core.errors import LoadError, closest
from penstock.engine.models.config import Activation, ModelConfig, MoE
from penstock.engine.models.scaling import RopeParameters, read_ropes

Count = Annotated[int, Meta(gt=0)]


class Naming(Struct, frozen=True, kw_only=True):
    """How a checkpoint calls its tensors. The names beside these are the same everywhere."""

    fused: bool = False  # qkv_proj and gate_up_proj instead of their parts
    moe: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    ignored: tuple[str, ...] = ()  # prefixes of what the decoder has no use for

    def canonical(self, name: str) -> str:
        """The name as a text-only checkpoint has it."""
        return name.replace("language_model.", "", 1)

    def is_ignored(self, name: str) -> bool:
        return name.endswith("rotary_emb.inv_freq") or name.startswith(self.ignored)


class Architecture(Struct, frozen=True, kw_only=True):
    """One row. `defaults` are config.json's values where the file has none."""

    name: str
    model_type: str
    defaults: Mapping[str, Any] = {}
    qkv_bias: bool = False  # on queries, keys and values whatever attention_bias says
    qk_norm: bool = False
    norm_offset: bool = False
    sandwich_norms: bool = False
    scaled_embedding: bool = False  # by the square root of the hidden size
    naming: Naming = Naming()


class HFConfig(Struct, frozen=True, kw_only=True):
    """The keys of config.json that the decoder depends on."""

    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    hidden_act: str = "silu"
    hidden_activation: str | None = None
    max_position_embeddings: Count = 2048
    original_max_position_embeddings: Count | None = None
    rms_norm_eps: float = 1e-6
    rope_theta: float | None = None
    rope_local_base_freq: float | None = None
    rope_scaling: RopeParameters | None = None
    rope_parameters: dict[str, Any] | None = None
    partial_rotary_factor: float = 1.0
    sliding_window: Count | None = None
    use_sliding_window: bool = True
    sliding_window_pattern: Count | None = None
    max_window_layers: int = 0
    layer_types: tuple[str, ...] | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    query_pre_attn_scalar: float | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    use_bidirectional_attention: bool | None = None
    attention_multiplier: float | None = None
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0
    num_local_experts: Count | None = None
    num_experts: Count | None = None
    num_experts_per_tok: Count = 2
    moe_intermediate_size: Count | None = None
    norm_topk_prob: bool = False
    decoder_sparse_step: Count = 1
    mlp_only_layers: tuple[int, ...] | None = None
    eos_token_id: int | tuple[int, ...] | None = None


# fmt: off
GEMMA2: Mapping[str, Any] = {
    "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 8192,
    "tie_word_embeddings": True, "query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_pattern": 2,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
}
GEMMA3: Mapping[str, Any] = {
    "vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 131_072, "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_pattern": 6,
    "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0,
}
VISION = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")

TABLE = (
    Architecture(name="LlamaForCausalLM", model_type="llama"),
    Architecture(
        name="MistralForCausalLM",
        model_type="mistral",
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096},
    ),
    Architecture(
        name="Qwen2ForCausalLM",
        model_type="qwen2",
        defaults={"max_position_embeddings": 32_768, "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28},
        qkv_bias=True,
    ),
    Architecture(
        name="Qwen3ForCausalLM",
        model_type="qwen3",
        defaults={
            "head_dim": 128, "max_position_embeddings": 32_768,
            "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
        },
        qk_norm=True,
    ),
    Architecture(
        name="Gemma2ForCausalLM",
        model_type="gemma2",
        defaults=GEMMA2,
        norm_offset=True,
        sandwich_norms=True,
        scaled_embedding=True,
    ),
    Architecture(
        name="Gemma3ForCausalLM",
        model_type="gemma3_text",
        defaults=GEMMA3,
        qk_norm=True,
        norm_offset=True,
        sandwich_norms=True,
        scaled_embedding=True,
    ),
    Architecture(
        name="Gemma3ForConditionalGeneration",  # its text part
        model_type="gemma3",
        defaults=GEMMA3,
        qk_norm=True,
        norm_offset=True,
        sandwich_norms=True,
        scaled_embedding=True,
        naming=Naming(ignored=VISION),
    ),
    Architecture(
        name="Phi3ForCausalLM",
        model_type="phi3",
        defaults={"max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        naming=Naming(fused=True),
    ),
    Architecture(name="GraniteForCausalLM", model_type="granite", defaults={"attention_multiplier": 1.0}),
    Architecture(
        name="MixtralForCausalLM",
        model_type="mixtral",
        defaults={
            "num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0,
            "num_local_experts": 8, "norm_topk_prob": True,
        },
        naming=Naming(moe="block_sparse_moe", gate="w1", up="w3", down="w2"),
    ),
    Architecture(
        name="Qwen3MoeForCausalLM",
        model_type="qwen3_moe",
        defaults={
            "num_key_value_heads": 4, "max_position_embeddings": 32_768, "use_sliding_window": False,
            "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
        },
        qk_norm=True,
    ),
)

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
}
# fmt: on


def architecture_names() -> tuple[str, ...]:
    """All that can be loaded, as `architectures` in config.json calls them."""
    return tuple(row.name for row in TABLE)


def naming_of(architecture: str) -> Naming:
    """How tensors of `architecture` are called. LoadError when there is no such row."""
    return _row(architecture, None).naming


def from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """The model that a parsed config.json describes. LoadError where it is unknown, incomplete or asks for what is not supported."""
    names = raw.get("architectures") or [None]
    row = _row(names[0], raw.get("model_type"))
    hf = _parse({**row.defaults, **_flat(raw)}, row)
    _refuse_unsupported(hf)
    config = _config(hf, row)
    if config.num_heads % config.num_kv_heads:
        raise LoadError(f"config.json has {config.num_heads} attention heads, not a multiple of its {config.num_kv_heads} key-value heads")
    return config


def _row(name: str | None, model_type: str | None) -> Architecture:
    for row in TABLE:
        if name == row.name or (name is None and model_type == row.model_type):
            return row
    near = closest(name or "", architecture_names())
    raise LoadError(
        f"architecture {name or model_type!r} is not supported",
        hint=(f"closest: {near}; " if near else "") + f"supported: {', '.join(architecture_names())}",
    )


def _flat(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The text model's keys at top level, where a multimodal config nests them."""
    text = raw.get("text_config")
    return {**raw, **text} if isinstance(text, Mapping) else dict(raw)


def _parse(merged: dict[str, Any], row: Architecture) -> HFConfig:
    try:
        return msgspec.convert(merged, HFConfig)
    except msgspec.ValidationError as error:
        raise LoadError(f"config.json of {row.name} cannot be used: {error}") from error


def _refuse_unsupported(hf: HFConfig) -> None:
    if hf.use_bidirectional_attention:
        raise LoadError("config.json sets use_bidirectional_attention, which is not supported", hint="only causal decoders can generate")


def _config(hf: HFConfig, row: Architecture) -> ModelConfig:
    head_dim = hf.head_dim or hf.hidden_size // hf.num_attention_heads
    rope, windowed_rope = read_ropes(hf, head_dim)
    return ModelConfig(
        architecture=row.name,
        vocab_size=hf.vocab_size,
        hidden_size=hf.hidden_size,
        intermediate_size=hf.intermediate_size,
        num_layers=hf.num_hidden_layers,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_key_value_heads or hf.num_attention_heads,
        head_dim=head_dim,
        max_position_embeddings=hf.max_position_embeddings,
        rope=rope,
        windowed_rope=windowed_rope,
        windows=_windows(hf),
        norm_eps=hf.rms_norm_eps,
        activation=_activation(hf.hidden_activation or hf.hidden_act),
        tie_word_embeddings=hf.tie_word_embeddings,
        qkv_bias=row.qkv_bias or hf.attention_bias,
        o_bias=hf.attention_bias,
        mlp_bias=hf.mlp_bias,
        qk_norm=row.qk_norm,
        norm_offset=row.norm_offset,
        sandwich_norms=row.sandwich_norms,
        attention_scale=_attention_scale(hf, head_dim),
        attention_softcap=hf.attn_logit_softcapping,
        logits_softcap=hf.final_logit_softcapping,
        logits_divisor=hf.logits_scaling,
        embedding_multiplier=hf.hidden_size**0.5 if row.scaled_embedding else hf.embedding_multiplier,
        residual_multiplier=hf.residual_multiplier,
        moe=_moe(hf),
        eos_token_ids=token_ids(hf.eos_token_id),
    )


def token_ids(value: object) -> tuple[int, ...]:
    """A token id setting of config.json or generation_config.json, which may be one id, several or null."""
    ids = value if isinstance(value, list | tuple) else [value]
    return tuple(token_id for token_id in ids if isinstance(token_id, int))


def _activation(name: str) -> Activation:
    if name not in ACTIVATIONS:
        raise LoadError(f"activation {name!r} is not supported", hint=f"supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _attention_scale(hf: HFConfig, head_dim: int) -> float:
    if hf.attention_multiplier is not None:
        return hf.attention_multiplier
    return float((hf.query_pre_attn_scalar or head_dim) ** -0.5)


def _windows(hf: HFConfig) -> tuple[int | None, ...]:
    window = hf.sliding_window if hf.use_sliding_window else None
    kinds = hf.layer_types or tuple(_layer_type(hf, i) for i in range(hf.num_hidden_layers))
    unknown = set(kinds) - {"sliding_attention", "full_attention"}
    if unknown:
        raise LoadError(f"layer type {min(unknown)!r} is not supported", hint="supported: sliding_attention, full_attention")
    if len(kinds) != hf.num_hidden_layers:
        raise LoadError(f"config.json has {len(kinds)} layer_types for {hf.num_hidden_layers} layers")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _layer_type(hf: HFConfig, layer: int) -> str:
    """Of a config without layer_types: with a pattern of n, every n-th layer is full; layers below max_window_layers are full."""
    periodic = hf.sliding_window_pattern is not None and (layer + 1) % hf.sliding_window_pattern == 0
    return "full_attention" if periodic or layer < hf.max_window_layers else "sliding_attention"


def _moe(hf: HFConfig) -> MoE | None:
    num_experts = hf.num_local_experts or hf.num_experts
    if num_experts is None:
        return None
    if hf.num_experts_per_tok > num_experts:
        raise LoadError(f"config.json sends each token to {hf.num_experts_per_tok} of {num_experts} experts")
    dense = set(hf.mlp_only_layers or ())
    return MoE(
        num_experts=num_experts,
        top_k=hf.num_experts_per_tok,
        intermediate_size=hf.moe_intermediate_size or hf.intermediate_size,
        renormalize=hf.norm_topk_prob,
        layers=tuple(i not in dense and (i + 1) % hf.decoder_sparse_step == 0 for i in range(hf.num_hidden_layers)),
    )
