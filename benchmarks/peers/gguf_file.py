"""A Hugging Face folder (llama or qwen2) as a GGUF file, for llama.cpp.

llama.cpp's own converter refuses tokenizers whose fingerprint it does not know, so the file is written here with its `gguf` package:
float32 matrices under llama.cpp's names, the query and key rows of the llama family in llama.cpp's rotary order, and the
vocabulary. `llama-quantize` makes the other formats from it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

NORMAL, CONTROL, BYTE = 1, 3, 6  # token types


def write_gguf(folder: Path, target: Path, gguf_package: Path) -> None:
    """Write `folder`'s model to `target`. `gguf_package` is the folder that holds llama.cpp's Python package."""
    sys.path.insert(0, str(gguf_package))
    import gguf

    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, kind)
    hyperparameters(writer, config)
    vocabulary(writer, folder, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], config["num_hidden_layers"])
    tensors = load_file(folder / "model.safetensors")
    if config["tie_word_embeddings"] and (head := tensors.pop("lm_head.weight", None)) is not None:
        tensors["model.embed_tokens.weight"] = head  # one matrix, under either name in the file
    for name, tensor in tensors.items():
        heads = rotated_heads(name, config) if kind == "llama" else 0
        data = rotary_order(tensor, heads) if heads else tensor
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), data.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(target)


def hyperparameters(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def vocabulary(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    """Byte-level BPE with its merges, or SentencePiece's kind: a score for each token, the earlier merged the higher."""
    data = json.loads((folder / "tokenizer.json").read_text())
    ids: dict[str, int] = data["model"]["vocab"]
    tokens = sorted(ids, key=lambda token: ids[token])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    special = {token["content"] for token in data["added_tokens"] if token["special"]}
    sentencepiece = data["model"].get("byte_fallback", False)
    types = [CONTROL if t in special else BYTE if sentencepiece and is_byte(t) else NORMAL for t in tokens]
    writer.add_tokenizer_model("llama" if sentencepiece else "gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if sentencepiece:
        rank = {merge.replace(" ", ""): index for index, merge in reversed(list(enumerate(merges)))}
        writer.add_token_scores([-float(rank.get(token, 0)) for token in tokens])
        writer.add_add_space_prefix(True)
    else:
        digits = data["pre_tokenizer"].get("type") == "Sequence"  # digits one by one, then GPT-2's pattern
        writer.add_tokenizer_pre("smollm" if digits else "gpt-2")
        writer.add_token_merges(merges or [f"{tokens[0]} {tokens[1]}"])  # llama.cpp wants at least one
    if config.get("bos_token_id") is not None:
        writer.add_bos_token_id(config["bos_token_id"])
    if config.get("eos_token_id") is not None:
        writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(config.get("bos_token_id") is not None and data["post_processor"] is not None)


def is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x")


def rotated_heads(name: str, config: dict[str, Any]) -> int:
    """How many heads' rows a query or key matrix has; 0 for every other tensor."""
    if name.endswith("q_proj.weight"):
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if name.endswith("k_proj.weight") else 0


def rotary_order(matrix: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from (first halves, second halves) to interleaved pairs."""
    return matrix.view(heads, 2, -1, matrix.shape[-1]).transpose(1, 2).reshape(matrix.shape)


if __name__ == "__main__":
    write_gguf(*(Path(argument) for argument in sys.argv[1:4]))
