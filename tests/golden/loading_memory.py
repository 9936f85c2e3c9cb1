"""Loads large models in a process of its own, and prints what each took: weights, memory at most, memory after; in bytes.

quantized   a GGUF file of Q8_0
rounded     a float32 folder whose matrices become int8 while they are loaded
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from penstock.engine.models.assembly import Form, Stored
from penstock.engine.models.load import load_weights, read_config, weights_bytes
from penstock.engine.models.size import Sizes, Target
from penstock.engine.quant.formats import INT8
from penstock.engine.quant.quantized import Quantized
from penstock.engine.quant.rtn import round_to_nearest
from penstock.files import ModelFiles, locate

HIDDEN, INNER, LAYERS, HEADS, VOCAB = 512, 1536, 16, 8, 4096
MATRICES = {
    "attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN, HIDDEN), "attn_v": (HIDDEN, HIDDEN), "attn_output": (HIDDEN, HIDDEN),
    "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN), "ffn_down": (HIDDEN, INNER),
}  # fmt: skip
NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def write_gguf(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    norm = np.ones(HIDDEN, dtype=np.float32)
    writer.add_tensor("output_norm.weight", norm)
    for name, shape in {"token_embd": (VOCAB, HIDDEN), "output": (VOCAB, HIDDEN)}.items():
        writer.add_tensor(f"{name}.weight", q8_0(shape), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for layer in (f"blk.{i}." for i in range(LAYERS)):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{layer}{name}.weight", norm)
        for name, shape in MATRICES.items():
            writer.add_tensor(f"{layer}{name}.weight", q8_0(shape), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def q8_0(shape: tuple[int, int]) -> np.ndarray:
    """Some bytes of that many numbers."""
    return np.ones((shape[0], shape[1] // 32 * 34), dtype=np.uint8)


def write_folder(folder: Path) -> None:
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (VOCAB, HIDDEN), "lm_head": (VOCAB, HIDDEN), "model.norm": (HIDDEN,)}
    for layer in (f"model.layers.{i}." for i in range(LAYERS)):
        shapes |= {f"{layer}{name}_layernorm": (HIDDEN,) for name in ("input", "post_attention")}
        shapes |= {f"{layer}{NAMES[name]}": shape for name, shape in MATRICES.items()}
    save_file({f"{name}.weight": torch.full(shape, 0.5) for name, shape in shapes.items()}, folder / "model.safetensors")


def finish(name: str, weight: Stored) -> Stored:
    """As packing does: other bytes, as many, and what they were made from is dropped."""
    if isinstance(weight, Quantized):
        return Quantized(weight.codes.clone(), weight.scales.clone(), None, weight.bits)
    return weight.clone()


def measured(files: ModelFiles, form: Form, sizes: Sizes) -> tuple[int, int, int]:
    config = read_config(files)
    ctypes.CDLL(None).malloc_trim(0)  # nothing is taken from what was freed before
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = in_use("VmRSS:")
    weights = load_weights(files, config, form, lambda stage, done, total: None)
    taken = in_use("VmHWM:") - before, in_use("VmRSS:") - before
    if len(weights.layers) != LAYERS:
        sys.exit("layers are missing")
    return weights_bytes(files, config, sizes), *taken


def in_use(what: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(what)[2].split()[0]) * 1024


def main(folder: Path) -> None:
    write_gguf(folder / "m.gguf")
    write_folder(folder / "floats")
    torch.set_num_threads(1)
    round_to_nearest(torch.ones(1, 32), INT8)  # whatever torch loads on first use
    rounding = Form(None, quantize=lambda name, tensor: round_to_nearest(tensor, INT8), finish=finish)
    told = {
        "quantized": measured(locate(str(folder / "m.gguf")), Form(None, finish=finish), Sizes(None)),
        "rounded": measured(locate(str(folder / "floats")), rounding, Sizes(None, target=Target(INT8))),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
