"""A small Llama of random weights, in memory or as a folder with the built-in model's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from penstock.engine.models.assembly import Assembly, Form
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.table import from_hf
from penstock.engine.models.weights import Weights, needs
from penstock.files import BUILTIN

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "torch_dtype": "float32",
}  # fmt: skip


def config_of(**changes: Any) -> ModelConfig:
    return from_hf(CONFIG | changes)


def random_tensors(config: ModelConfig) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors, the same each time: some channels of the norms stand out, as they do in trained models."""
    rng = torch.Generator().manual_seed(0)

    def tensor(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
        drawn = torch.randn(shape, generator=rng)
        return (drawn * 0.8).exp() if kind == "norm" else drawn * (0.1 if kind == "bias" else shape[-1] ** -0.5)

    return {name: tensor(whole.kind, shape) for whole in needs(config) for name, shape in whole.parts.items()}


def random_weights(config: ModelConfig) -> Weights:
    with torch.inference_mode():
        return Assembly(config, Form(torch.float32)).weights(random_tensors(config).items(), lambda *_: None)


def folder_of(path: Path, **changes: Any) -> Path:
    """The same as a Hugging Face folder."""
    path.mkdir()
    raw = CONFIG | changes
    (path / "config.json").write_text(json.dumps(raw))
    save_file(random_tensors(from_hf(raw)), path / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(BUILTIN["penstock-mini"] / name, path / name)
    return path
