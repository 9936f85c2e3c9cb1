"""A Llama in plain torch, with the same mathematics and weight names as the one in transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from training.tokenizer import BOS, END, PAD, SPECIAL


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the model. ``kv_heads`` divides ``heads``; embeddings are shared with the output."""

    vocabulary: int = 2048
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 448
    positions: int = 2048
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def rotations(shape: Shape, length: int) -> Tensor:
    """Cosines and sines of RoPE (Su et al. 2021), rotate-half layout: [2, length, head_dim]."""
    frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
    angles = torch.outer(torch.arange(length).float(), frequencies).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Apply ``turns`` [2, length, head_dim] to ``x`` [batch, heads, length, head_dim]."""
    low, high = x.chunk(2, dim=-1)
    return x * turns[0].to(x.dtype) + torch.cat((-high, low), dim=-1) * turns[1].to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention; ``mask`` keeps documents that share a row apart."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_dim = shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_dim, bias=False)
        self.o_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor) -> Tensor:
        batch, length, hidden = x.shape
        heads = (batch, length, -1, self.shape.head_dim)
        q, k, v = (project(x).view(heads).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj))
        group = self.shape.heads // self.shape.kv_heads
        k = rotate(k, turns).repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(rotate(q, turns), k, v.repeat_interleave(group, dim=1), attn_mask=mask)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, hidden))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.down_proj = nn.Linear(shape.mlp, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, shape.norm_epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, shape.norm_epsilon)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turns, mask)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Llama(nn.Module):
    """Token ids to hidden states; ``logits`` and ``loss`` read the shared embedding."""

    turns: Tensor  # [2, positions, head_dim]

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        layers = [Layer(shape) for _ in range(shape.layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.RMSNorm(shape.hidden, shape.norm_epsilon)
        self.register_buffer("turns", rotations(shape, shape.positions), persistent=False)
        self.apply(self._initialize)
        for layer in layers:  # a layer that starts as the identity trains faster
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)

    @staticmethod
    def _initialize(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states after the last norm, [batch, length, hidden]; mask [batch, 1, length, length], True = visible."""
        x = self.embed_tokens(ids)
        turns = self.turns[:, : ids.shape[1]]
        for layer in self.layers:
            x = layer(x, turns, mask)
        return self.norm(x)  # type: ignore[no-any-return]

    def logits(self, ids: Tensor) -> Tensor:
        """Scores of the next token at every place of one causal row, [batch, length, vocabulary]."""
        length = ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril().expand(len(ids), 1, length, length)
        return F.linear(self(ids, mask), self.embed_tokens.weight)

    def loss(self, ids: Tensor, mask: Tensor, places: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy at ``places`` (flat indices into ids); a target of -100 does not count."""
        hidden = self(ids, mask).flatten(0, 1)[places]
        return F.cross_entropy(F.linear(hidden, self.embed_tokens.weight).float(), targets, ignore_index=-100)


def export(weights: dict[str, Tensor], shape: Shape, folder: Path) -> None:
    """Write ``weights`` in bfloat16 and the config files, in the layout of transformers' LlamaForCausalLM."""
    tensors = {f"model.{name}": tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    weights_file = folder / "model.safetensors"
    save_file(tensors, str(weights_file), metadata={"format": "pt"})
    weights_file.chmod(0o644)  # safetensors makes it readable by its owner alone
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2) + "\n")
    sampling = {
        "bos_token_id": SPECIAL.index(BOS),
        "eos_token_id": [SPECIAL.index(END)],
        "pad_token_id": SPECIAL.index(PAD),
        "do_sample": True,
        "temperature": 0.3,
        "top_p": 0.95,
        "max_new_tokens": 256,
    }
    (folder / "generation_config.json").write_text(json.dumps(sampling, indent=2) + "\n")


def config(shape: Shape) -> dict[str, object]:
    """``shape`` in the words of a transformers LlamaConfig."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.positions,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": SPECIAL.index(BOS),
        "eos_token_id": SPECIAL.index(END),
        "pad_token_id": SPECIAL.index(PAD),
        "torch_dtype": "bfloat16",
    }
