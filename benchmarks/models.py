"""Models to measure with: random weights in a real architecture's shape, made once and kept in a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, Qwen2Config

QWEN_05B = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151_936,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}


def qwen_05b(folder: Path, dtype: torch.dtype) -> Path:
    """A random model in Qwen2.5-0.5B's shape (494 M parameters) with a byte-level tokenizer of the same vocabulary size."""
    target = folder / f"qwen-0.5b-shape-{dtype}".replace("torch.", "")
    if not (target / "model.safetensors").exists():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(Qwen2Config(**QWEN_05B), dtype=dtype)
        model.save_pretrained(target, safe_serialization=True)
        byte_tokenizer(QWEN_05B["vocab_size"]).save(str(target / "tokenizer.json"))
    return target


def byte_tokenizer(vocab_size: int) -> Tokenizer:
    """One token per byte, and words that no text contains to fill the vocabulary."""
    vocab = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {f"w{index}": index for index in range(len(vocab), vocab_size)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
