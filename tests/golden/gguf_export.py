"""Writes a saved Hugging Face model to GGUF as llama.cpp's convert_hf_to_gguf.py does, names and all, with the `gguf` package."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

Array = np.ndarray[Any, np.dtype[Any]]
ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "granite": "granite", "qwen2": "qwen2", "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe", "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3",
}  # fmt: skip
Kind = Callable[[str, Array], gguf.GGMLQuantizationType]
Quantize = Callable[[Array, gguf.GGMLQuantizationType], Array]


def all_f32(name: str, array: Array) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType.F32


def export(folder: Path, target: Path, kind: Kind = all_f32, quantize: Quantize = gguf.quants.quantize) -> None:
    """`kind` chooses the type in which a tensor is stored by its GGUF name, `quantize` makes its blocks."""
    config = json.loads((folder / "config.json").read_text())
    name = ARCHITECTURES[config["model_type"]]
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    writer = gguf.GGUFWriter(target, name)
    write_metadata(writer, config)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for hf_name, array in converted(load_file(folder / "model.safetensors"), config):
        gguf_name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        stored = kind(gguf_name, array)
        if stored == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(gguf_name, array.astype(np.float32))
        else:
            writer.add_tensor(gguf_name, quantize(array.astype(np.float32), stored), raw_dtype=stored)
    for extra, factors in rope_tensors(config):
        writer.add_tensor(extra, factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    writer.add_eos_token_id(config["eos_token_id"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(config.get("original_max_position_embeddings") or rope["original_max_position_embeddings"])
    if rope["rope_type"] == "longrope":
        scale = config["max_position_embeddings"] / config["original_max_position_embeddings"]
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(config["original_max_position_embeddings"])))
    write_particulars(writer, config)


def write_particulars(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """What only some architectures have."""
    optional = {
        "sliding_window": writer.add_sliding_window,
        "attn_logit_softcapping": writer.add_attn_logit_softcapping,
        "final_logit_softcapping": writer.add_final_logit_softcapping,
        "attention_multiplier": writer.add_attention_scale,
        "embedding_multiplier": writer.add_embedding_scale,
        "residual_multiplier": writer.add_residual_scale,
        "logits_scaling": writer.add_logit_scale,
        "num_local_experts": writer.add_expert_count,
        "num_experts": writer.add_expert_count,
        "moe_intermediate_size": writer.add_expert_feed_forward_length,
    }
    for key, write in optional.items():
        if config.get(key) is not None and config["model_type"] != "mistral":
            write(config[key])
    if "num_local_experts" in config or "num_experts" in config:
        writer.add_expert_used_count(config["num_experts_per_tok"])


def converted(tensors: dict[str, Array], config: dict[str, Any]) -> Iterator[tuple[str, Array]]:
    kind = config["model_type"]
    experts: dict[str, dict[int, Array]] = {}
    for name, array in tensors.items():
        if ".experts." in name:
            before, _, after = name.partition(".experts.")
            index, _, rest = after.partition(".")
            experts.setdefault(f"{before}.experts.{rest}", {})[int(index)] = array
        elif ARCHITECTURES[kind] in ("llama", "granite") and (".q_proj." in name or ".k_proj." in name):
            yield name, permuted(array, config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"])
        elif kind.startswith("gemma") and name.endswith("norm.weight"):
            yield name, array + 1
        else:
            yield name, array
    for name, parts in experts.items():
        yield name, np.stack([parts[i] for i in range(len(parts))])


def permuted(array: Array, heads: int) -> Array:
    return array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def rope_tensors(config: dict[str, Any]) -> Iterator[tuple[str, Array]]:
    rope = config["rope_parameters"]
    if rope.get("rope_type") == "llama3":
        yield "rope_freqs.weight", np.array(llama3_divisors(rope, config["head_dim"]), dtype=np.float32)
    if rope.get("rope_type") == "longrope":
        yield "rope_factors_long.weight", np.array(rope["long_factor"], dtype=np.float32)
        yield "rope_factors_short.weight", np.array(rope["short_factor"], dtype=np.float32)


def llama3_divisors(rope: dict[str, Any], dim: int) -> list[float]:
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    divisors = []
    for i in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / dim)
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return divisors
