"""Models in GGUF files: metadata to `ModelConfig`, tensors to Hugging Face's names and layout.

llama.cpp's converter changes three things that are undone here: it reorders the rows of queries and keys of
llama-like architectures (pairs instead of halves turn together), adds one to Gemma's norm weights, and stacks experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

from penstock.core.errors import LoadError, closest
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.ggml_blocks import dequantize, format_of, read
from penstock.engine.models.table import Naming, from_hf, naming_of
from penstock.engine.models.weights import Header
from penstock.engine.quant.quantized import Quantized
from penstock.files import ModelFiles
from penstock.files.gguf import GGUFFile, GGUFTensor


class Architecture(Struct, frozen=True):
    """One `general.architecture`: its name at Hugging Face, and whether pairs of neighbours turn together."""

    name: str
    paired: bool = False


_ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture("LlamaForCausalLM", paired=True),  # Mistral and Mixtral too
        "qwen2": Architecture("Qwen2ForCausalLM"),
        "qwen3": Architecture("Qwen3ForCausalLM"),
        "qwen3moe": Architecture("Qwen3MoeForCausalLM"),
        "gemma2": Architecture("Gemma2ForCausalLM"),
        "gemma3": Architecture("Gemma3ForCausalLM"),
        "phi3": Architecture("Phi3ForCausalLM"),
        "granite": Architecture("GraniteForCausalLM", paired=True),
    }
)
_MIXTRAL = "MixtralForCausalLM"

# Hugging Face's keys of config.json by what follows the architecture's name in GGUF's
_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "block_count": "num_hidden_layers",
        "context_length": "max_position_embeddings",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
        "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        "attention.sliding_window": "sliding_window",
        "attention.scale": "attention_multiplier",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
        "rope.freq_base": "rope_theta",
        "rope.freq_base_swa": "rope_local_base_freq",
        "rope.scaling.original_context_length": "original_max_position_embeddings",
        "embedding_scale": "embedding_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
        "expert_count": "num_local_experts",
        "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size",
    }
)
_TENSORS: Mapping[str, str] = MappingProxyType({"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"})
_LAYER_TENSORS: Mapping[str, str] = MappingProxyType(
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_qkv": "self_attn.qkv_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
_ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")


def read_config(files: ModelFiles) -> ModelConfig:
    """The model that the file's metadata describes. LoadError for an architecture or a setting that is not supported."""
    return _Model(files).config


def weights(files: ModelFiles) -> Iterator[tuple[str, Tensor | Quantized]]:
    """Each tensor under its Hugging Face name; matrices that are quantized in the file stay so."""
    model = _Model(files)
    for name, part, tensor in model.located():
        yield name, model.read(part, tensor)
        model.release()


def headers(files: ModelFiles) -> Iterator[tuple[str, Header]]:
    """As `weights`, with how each tensor will come instead of the tensor."""
    for name, _, tensor in _Model(files).located():
        yield name, Header(tensor.shape, format_of(tensor.type, tensor.shape))


class _Model:
    """One file, read once."""

    def __init__(self, files: ModelFiles) -> None:
        self._file = GGUFFile(files.path)
        self._metadata = self._file.metadata
        self._refuse_parts(files)
        self.tensors = self._file.tensors
        self._kind, self._architecture = self._known_architecture()
        self.config = self._config()
        self._naming = naming_of(self.config.architecture)

    # -- metadata

    def _refuse_parts(self, files: ModelFiles) -> None:
        count = self._metadata.get("split.count", 1)
        if count != 1:
            raise LoadError(f"{files.path} is one of {count} parts", hint="join them with `llama-gguf-split --merge` first")

    def _known_architecture(self) -> tuple[str, Architecture]:
        name = str(self._metadata.get("general.architecture"))
        known = _ARCHITECTURES.get(name)
        if known is None:
            near = closest(name, _ARCHITECTURES)
            raise LoadError(
                f"GGUF architecture {name!r} is not supported",
                hint=(f"closest: {near}; " if near else "") + f"supported: {', '.join(_ARCHITECTURES)}",
            )
        return name, known

    def _get(self, key: str) -> Any:
        """A metadata value of this architecture, which the container did not check, or None."""
        return self._metadata.get(f"{self._kind}.{key}")

    def _config(self) -> ModelConfig:
        raw = {name: self._get(key) for key, name in _KEYS.items() if self._get(key)}
        embedding = self.tensors.get("token_embd.weight")
        raw |= {
            "architectures": [_MIXTRAL if self._kind == "llama" and "num_local_experts" in raw else self._architecture.name],
            "vocab_size": embedding.shape[0] if embedding else None,
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "norm_topk_prob": True,
            "rope_scaling": self._rope_scaling(),
        }
        config = from_hf(raw | self._derived(raw))
        return msgspec.structs.replace(
            config,
            norm_offset=False,
            qkv_bias="blk.0.attn_q.bias" in self.tensors,
            o_bias="blk.0.attn_output.bias" in self.tensors,
            mlp_bias="blk.0.ffn_up.bias" in self.tensors,
            eos_token_ids=self._end_ids(),
        )

    def _derived(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """What metadata expresses in other terms than config.json."""
        try:
            hidden, heads, layers = raw["hidden_size"], raw["num_attention_heads"], raw["num_hidden_layers"]
            if layers > len(self.tensors):
                raise LoadError(f"the GGUF speaks of {layers} layers and has {len(self.tensors)} tensors", hint="convert the model again")
            head_dim = raw.get("head_dim", hidden // heads)
            derived = {"head_dim": head_dim, "partial_rotary_factor": (self._get("rope.dimension_count") or head_dim) / head_dim}
            if (self._kind, layers) in (("gemma2", 46), ("gemma3", 62)):  # the 27B ones, which llama.cpp knows by their depth too
                derived["query_pre_attn_scalar"] = hidden / heads
            elif self._kind in ("gemma2", "gemma3"):
                derived["query_pre_attn_scalar"] = head_dim
        except (KeyError, TypeError) as error:
            raise LoadError(f"the GGUF metadata of {self._kind} is not complete: {error}", hint="convert the model again") from error
        return derived

    def _rope_scaling(self) -> dict[str, Any] | None:
        divisors = {name: self._floats(name) for name in _ROPE_TENSORS if name in self.tensors}
        if "rope_freqs.weight" in divisors:
            fixed = divisors["rope_freqs.weight"]
            return {"rope_type": "longrope", "short_factor": fixed, "long_factor": fixed, "attention_factor": 1.0}
        if divisors:
            short, long = divisors.get("rope_factors_short.weight"), divisors.get("rope_factors_long.weight")
            factor = self._get("rope.scaling.attn_factor")
            return {"rope_type": "longrope", "short_factor": short, "long_factor": long, "attention_factor": factor}
        kind = self._get("rope.scaling.type")
        return None if kind in (None, "none") else {"rope_type": kind, "factor": self._get("rope.scaling.factor")}

    def _end_ids(self) -> tuple[int, ...]:
        ids = [self._metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
        return tuple(dict.fromkeys(token for token in ids if isinstance(token, int)))

    # -- tensors

    def located(self) -> Iterator[tuple[str, str, GGUFTensor]]:
        """Hugging Face's name of each tensor, its part of the layer, and where it lies; stacked experts one by one."""
        for name, tensor in self.tensors.items():
            if name in _ROPE_TENSORS or name.endswith(".attn_rot_embd.weight"):
                continue
            stem, _, suffix = name.rpartition(".")
            if not stem.startswith("blk."):
                yield f"{_TENSORS.get(stem, stem)}.{suffix}", stem, tensor
                continue
            _, layer, part = (*stem.split(".", 2), "")[:3]
            prefix, naming = f"model.layers.{layer}.", self._naming
            experts = {"ffn_gate_exps": naming.gate, "ffn_up_exps": naming.up, "ffn_down_exps": naming.down}
            if part in experts:
                for i, expert in enumerate(_slices(tensor)):
                    yield f"{prefix}{naming.moe}.experts.{i}.{experts[part]}.{suffix}", part, expert
            else:
                yield f"{prefix}{self._layer_name(part, naming)}.{suffix}", part, tensor

    def read(self, part: str, tensor: GGUFTensor) -> Tensor | Quantized:
        """The numbers of a tensor that `located` gave."""
        return self._in_halves(part, read(self._file.data(tensor), tensor.type, tensor.shape))

    def release(self) -> None:
        """What was read of the file no longer counts as memory of this process."""
        self._file.release()

    def _layer_name(self, part: str, naming: Naming) -> str:
        if part == "ffn_norm":
            return "pre_feedforward_layernorm" if self.config.sandwich_norms else "post_attention_layernorm"
        if part == "ffn_gate_inp":
            return f"{naming.moe}.gate"
        if part == "ffn_up" and naming.fused:
            return "mlp.gate_up_proj"
        return _LAYER_TENSORS.get(part, part)

    def _in_halves(self, part: str, values: Tensor | Quantized) -> Tensor | Quantized:
        """Rows of queries and keys reordered, where neighbours turn together, to turn with the head's other half."""
        heads = {"attn_q": self.config.num_heads, "attn_k": self.config.num_kv_heads}.get(part)
        if heads is None or not self._architecture.paired:
            return values
        order = halves_from_pairs(values.shape[0], heads)
        return values.rows(order) if isinstance(values, Quantized) else values[order]

    def _floats(self, name: str) -> list[float]:
        tensor = self.tensors[name]
        return list(dequantize(self._file.data(tensor), tensor.type, tensor.shape).flatten().tolist())


def halves_from_pairs(rows: int, num_heads: int) -> Tensor:
    """The order of output rows [heads * head_dim] in which entry i of a head turns with i + head_dim/2 instead of i with i + 1."""
    if rows % (2 * num_heads):
        raise LoadError(f"{rows} rows of queries or keys cannot be shared among {num_heads} heads", hint="convert the model again")
    return torch.arange(rows).view(num_heads, -1, 2).transpose(1, 2).flatten()


def _slices(tensor: GGUFTensor) -> Iterator[GGUFTensor]:
    """The tensors [rows, cols] that one of [count, rows, cols] is made of."""
    count, *shape = tensor.shape
    for i in range(count):
        size = tensor.num_bytes // count
        yield GGUFTensor(tensor.type, tuple(shape), tensor.start + i * size, size)
