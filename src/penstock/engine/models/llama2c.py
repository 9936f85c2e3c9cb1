"""Models in llama2.c's `.bin` files: Llama 2's architecture, with pairs of neighbours that turn together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from penstock.engine.models.config import ModelConfig, Rope
from penstock.engine.models.gguf import halves_from_pairs
from penstock.engine.models.weights import Header
from penstock.files import ModelFiles
from penstock.files.llama2c import Llama2cFile

_END_IDS = (1, 2)  # BOS, which separates the stories that these models were trained on, and EOS
_TENSORS: Mapping[str, str] = MappingProxyType(
    {
        "token_embedding_table": "model.embed_tokens.weight",
        "rms_final_weight": "model.norm.weight",
        "wcls": "lm_head.weight",
    }
)
_LAYER_TENSORS: Mapping[str, str] = MappingProxyType(
    {
        "rms_att_weight": "input_layernorm",
        "wq": "self_attn.q_proj",
        "wk": "self_attn.k_proj",
        "wv": "self_attn.v_proj",
        "wo": "self_attn.o_proj",
        "rms_ffn_weight": "post_attention_layernorm",
        "w1": "mlp.gate_proj",
        "w2": "mlp.down_proj",
        "w3": "mlp.up_proj",
    }
)


def read_config(files: ModelFiles) -> ModelConfig:
    """The model that the file's header describes."""
    header = Llama2cFile(files.path).header
    return ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=header.vocab_size,
        hidden_size=header.dim,
        intermediate_size=header.hidden_dim,
        num_layers=header.num_layers,
        num_heads=header.num_heads,
        num_kv_heads=header.num_kv_heads,
        head_dim=header.head_dim,
        max_position_embeddings=header.seq_len,
        rope=Rope(dim=header.head_dim),
        windows=(None,) * header.num_layers,
        norm_eps=1e-5,
        tie_word_embeddings=header.shared_classifier,
        attention_scale=header.head_dim**-0.5,
        eos_token_ids=_END_IDS,
    )


def weights(files: ModelFiles) -> Iterator[tuple[str, Tensor]]:
    """Each tensor under its Hugging Face name, float32, sharing the memory of the mapped file."""
    file = Llama2cFile(files.path)
    heads = {"wq": file.header.num_heads, "wk": file.header.num_kv_heads}
    for name, shape in file.header.shapes.items():
        values = torch.frombuffer(file.data(name), dtype=torch.float32).view(shape)
        if name in _TENSORS:
            yield _TENSORS[name], values
        elif name in _LAYER_TENSORS:
            for layer, value in enumerate(values):
                in_halves = value[halves_from_pairs(len(value), heads[name])] if name in heads else value
                yield f"model.layers.{layer}.{_LAYER_TENSORS[name]}.weight", in_halves


def headers(files: ModelFiles) -> Iterator[tuple[str, Header]]:
    """As `weights`, with how each tensor will come instead of the tensor."""
    for name, tensor in weights(files):
        yield name, Header(tuple(tensor.shape), tensor.dtype)
