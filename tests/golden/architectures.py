"""A random model of each architecture, made by transformers: small, and with nothing in it that is trivially one or zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.15,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GEMMA = {"sliding_window": 8, "query_pre_attn_scalar": 6}
QWEN_MOE = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 20}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]}


@dataclass(frozen=True)
class Case:
    """One architecture with one set of options. `length` is that of the prompts, `served` the longest context of the loaded model."""

    name: str
    model_type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    length: int = 40
    served: int | None = None


CASES = [
    Case("llama", "llama"),
    Case("llama-tied-biased", "llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    Case("llama-no-gqa", "llama", {"num_key_value_heads": 4, "head_dim": 12}),
    Case("llama-rope-llama3", "llama", {"rope_parameters": {**LLAMA3, "rope_theta": 500.0}}),
    Case("llama-rope-linear", "llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4}}),
    Case(
        "llama-rope-dynamic",
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, "max_position_embeddings": 16},
        served=40,
    ),
    Case("llama-rope-yarn", "llama", {"rope_parameters": {**YARN, "rope_theta": 1e4}}),
    Case("llama-rope-yarn-mscale", "llama", {"rope_parameters": {**YARN, "rope_theta": 1e4, "mscale": 0.7, "mscale_all_dim": 1.0}}),
    Case("mistral", "mistral", {"sliding_window": None}),
    Case("mistral-window", "mistral", {"sliding_window": 7}),
    Case("qwen2", "qwen2"),
    Case("qwen2-window", "qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    Case("qwen3", "qwen3"),
    Case("qwen3-rope-yarn", "qwen3", {"rope_parameters": {**YARN, "rope_theta": 1e6}}),
    Case("gemma2", "gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    Case("gemma3", "gemma3_text", {**GEMMA, "sliding_window_pattern": 2}),
    Case(
        "gemma3-rope-linear",
        "gemma3_text",
        {**GEMMA, "sliding_window_pattern": 3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    Case("phi3", "phi3", {"sliding_window": 11}),
    Case("phi3-partial-rotary", "phi3", {"partial_rotary_factor": 0.5}),
    Case("phi3-longrope", "phi3", {"rope_parameters": {**LONGROPE, "rope_theta": 1e4}, "original_max_position_embeddings": 16}),
    Case(
        "phi3-longrope-short",
        "phi3",
        {"rope_parameters": {**LONGROPE, "rope_theta": 1e4}, "original_max_position_embeddings": 16},
        length=16,
        served=16,
    ),
    Case(
        "granite",
        "granite",
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 4.0},
    ),
    Case("mixtral", "mixtral", {"num_local_experts": 5, "num_experts_per_tok": 2}),
    Case("mixtral-window", "mixtral", {"num_local_experts": 3, "num_experts_per_tok": 3, "sliding_window": 6}),
    Case("qwen3-moe", "qwen3_moe", {**QWEN_MOE, "norm_topk_prob": True}),
    Case("qwen3-moe-dense-layer", "qwen3_moe", {**QWEN_MOE, "mlp_only_layers": [1]}),
]  # fmt: skip


def random_model(case: Case, folder: Path) -> Any:
    """The transformers model of `case`, also saved to `folder`."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(case.model_type, **{**SMALL, **case.options})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return model
