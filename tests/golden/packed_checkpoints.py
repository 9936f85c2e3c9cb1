"""Writes GPTQ and AWQ checkpoints as AutoGPTQ and AutoAWQ pack them, of random codes, beside the float weights that they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 50, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "eos_token_id": 2,
}  # fmt: skip
MATRICES = {
    "self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64), "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64), "mlp.down_proj": (64, 96),
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """How a checkpoint is quantized. `group` -1 is the whole row."""

    method: str = "gptq"
    bits: int = 4
    group: int = 32
    symmetrical: bool = True
    act_order: bool = False
    version: str = "gptq"

    @property
    def settings(self) -> dict[str, object]:
        common = {"quant_method": self.method, "bits": self.bits, "group_size": self.group}
        if self.method == "awq":
            return common | {"zero_point": True, "version": "gemm"}
        return common | {"sym": self.symmetrical, "desc_act": self.act_order, "checkpoint_format": self.version}


def write(folder: Path, kind: Kind) -> tuple[Path, Path]:
    """Folders of the same model, quantized and in floats."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    others = {
        "model.embed_tokens.weight": torch.randn(50, 64),
        "lm_head.weight": torch.randn(50, 64) / 8,
        "model.norm.weight": torch.ones(64),
    }
    packed, floats = dict(others), dict(others)
    for layer in (f"model.layers.{i}." for i in range(2)):
        norms = {f"{layer}{name}_layernorm.weight": torch.rand(64) for name in ("input", "post_attention")}
        packed |= norms
        floats |= norms
        orders = {cols: rng.permutation(cols) for cols in (64, 96)}  # one for the matrices that share inputs
        for name, (rows, cols) in MATRICES.items():
            parts, weight = matrix(kind, (rows, cols), orders[cols], rng)
            packed |= {f"{layer}{name}.{part}": tensor for part, tensor in parts.items()}
            floats[f"{layer}{name}.weight"] = weight
    return save(folder / "packed", packed, {"quantization_config": kind.settings}), save(folder / "floats", floats, {})


def save(folder: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, object]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | dict(settings)))
    save_file(dict(tensors), folder / "model.safetensors")
    return folder


def matrix(kind: Kind, shape: tuple[int, int], order: Any, rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """One matrix of random codes: its parts, and its weights [rows, cols]."""
    rows, cols = shape
    size = cols if kind.group == -1 else kind.group
    codes = rng.integers(0, 1 << kind.bits, (cols, rows), dtype=np.uint32)
    zeros = rng.integers(1, 1 << kind.bits, (cols // size, rows), dtype=np.uint32)
    if kind.symmetrical:
        zeros[:] = 1 << (kind.bits - 1)
    scales = (torch.rand(cols // size, rows) + 0.5).div(2 << kind.bits).half()
    groups = np.argsort(order) // size if kind.act_order else np.arange(cols) // size
    weight = scales.float().numpy()[groups] * (codes.astype(np.float32) - zeros.astype(np.float32)[groups])
    stored = zeros - 1 if kind.version == "gptq" and kind.method == "gptq" else zeros
    if kind.method == "awq":
        parts = {"qweight": in_words(codes, 4, AWQ_ORDER), "qzeros": in_words(stored, 4, AWQ_ORDER)}
    else:
        in_order = tuple(range(32 // kind.bits))
        parts = {"qweight": in_words(codes.T, kind.bits, in_order).T, "qzeros": in_words(stored, kind.bits, in_order)}
        parts["g_idx"] = groups.astype(np.int32)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}
    return tensors | {"scales": scales}, torch.from_numpy(np.ascontiguousarray(weight.T))


def in_words(codes: Any, bits: int, order: tuple[int, ...]) -> Any:
    """codes [n, m] -> [n, m * bits / 32] int32; entry order[i] of a word's numbers has its bits at bits * i."""
    count = 32 // bits
    words = np.zeros((codes.shape[0], codes.shape[1] // count), dtype=np.uint32)
    for place, entry in enumerate(order):
        words |= codes[:, entry::count] << np.uint32(bits * place)
    return words.view(np.int32)
