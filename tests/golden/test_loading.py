"""Checkpoints on disk: what is read, and what is refused and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from penstock.core.errors import LoadError
from penstock.engine.models.load import read_config
from tests.golden.pages import Pages, files_of, load

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "eos_token_id": 2,
}  # fmt: skip
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {"model.embed_tokens": (50, 16), "model.norm": (16,), "lm_head": (50, 16)}
    for i in range(2):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}{name}": (16,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{layer}self_attn.{name}": (rows, 16) for name, rows in (("q_proj", 16), ("k_proj", 8), ("v_proj", 8), ("o_proj", 16))}
        shapes |= {f"{layer}mlp.{name}": (24, 16) for name in ("gate_proj", "up_proj")} | {f"{layer}mlp.down_proj": (16, 24)}
    return {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors(), tmp_path / "model.safetensors")
    return tmp_path


def configure(folder: Path, **changes: object) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))


def logits_of(folder: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return Pages(load(folder, dtype=dtype), num_seqs=1, max_len=8).step({0: [3, 4, 5, 6]})[0]


def shard(folder: Path) -> list[str]:
    """Split the folder's weights over two files."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {name: names[i % 2] for i, name in enumerate(sorted(whole))}
    for file in names:
        save_file({name: whole[name] for name, of in weight_map.items() if of == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return names


def test_shards_give_the_same_model_as_one_file(folder: Path) -> None:
    expected = logits_of(folder)
    shard(folder)
    torch.testing.assert_close(logits_of(folder), expected, atol=0, rtol=0)


@pytest.mark.parametrize("kept", ["lm_head.weight", "model.embed_tokens.weight"])
def test_tied_weights_are_found_under_either_name(folder: Path, kept: str) -> None:
    configure(folder, tie_word_embeddings=True)
    tied = tensors()
    tied["lm_head.weight"] = tied["model.embed_tokens.weight"].clone()
    save_file(tied, folder / "model.safetensors")
    expected = logits_of(folder)
    del tied[({"lm_head.weight", "model.embed_tokens.weight"} - {kept}).pop()]
    save_file(tied, folder / "model.safetensors")
    torch.testing.assert_close(logits_of(folder), expected, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_near_float32(folder: Path, dtype: torch.dtype) -> None:
    exact, rounded = logits_of(folder), logits_of(folder, dtype)
    assert rounded.dtype is torch.float32
    assert torch.nn.functional.cosine_similarity(exact, rounded).min() > 0.999


def test_progress_ends_at_the_total(folder: Path) -> None:
    from penstock.engine.kernels.reference import ReferenceKernels
    from penstock.engine.models.load import load_model

    seen: list[tuple[str, int, int]] = []
    decoder = load_model(
        files_of(folder), device="cpu", dtype=torch.float32, kernels=ReferenceKernels(), progress=lambda *told: seen.append(told)
    )
    assert len(seen) == len(tensors())
    assert seen[-1] == ("weights", 4 * decoder.config.num_parameters, 4 * decoder.config.num_parameters)


def test_generation_config_says_where_to_stop(folder: Path) -> None:
    assert read_config(files_of(folder)).eos_token_ids == (2,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert read_config(files_of(folder)).eos_token_ids == (7, 9)


def drop(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        save_file({k: v for k, v in tensors().items() if k != name}, folder / "model.safetensors")

    return change


def add(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: save_file(tensors() | {name: tensor}, folder / "model.safetensors")


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def lose_a_shard(folder: Path) -> None:
    (folder / shard(folder)[1]).unlink()


def lead_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop(Q_PROJ), f"1 tensors missing ({Q_PROJ})"),
        (add("model.layers.9.surprise", torch.ones(3)), "1 tensors unknown (model.layers.9.surprise)"),
        (add(Q_PROJ, torch.ones(4, 16)), f"{Q_PROJ} has shape [4, 16], its config asks for [16, 16]"),
        (add(Q_PROJ, torch.ones(16, 16, dtype=torch.int8)), f"{Q_PROJ} has type torch.int8"),
        (truncate, "model.safetensors cannot be read"),
        (lose_a_shard, "lacks model-00002-of-00002.safetensors"),
        (lead_elsewhere, "lists no usable files"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(folder: Path, change: Callable[[Path], None], said: str) -> None:
    change(folder)
    with pytest.raises(LoadError) as refusal:
        load(folder)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["LlamaForCausaLM"]}, "closest: LlamaForCausalLM; supported: LlamaForCausalLM, MistralForCausalLM"),
        ({"architectures": ["BertModel"]}, "architecture 'BertModel' is not supported (supported: Llama"),
        ({"architectures": None, "model_type": "mamba"}, "architecture 'mamba' is not supported"),
        ({"hidden_act": "relu6"}, "activation 'relu6' is not supported (supported: silu"),
        ({"rope_scaling": {"rope_type": "xpos", "factor": 2.0}}, "rope type 'xpos' is not supported (supported: default, linear"),
        ({"rope_scaling": {"type": "linear"}}, "rope type linear without its factor"),
        ({"partial_rotary_factor": 1.5}, "turns 1.5 of each head's"),
        ({"partial_rotary_factor": -1.0}, "turns -1.0 of each head's"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}, "short_factor has 1 entries, 2 are needed"),
        ({"rope_parameters": {"rope_type": 3}}, "rope_parameters of config.json cannot be used"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "quantized (compressed-tensors), which is not supported"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "quantized (gptq of 3 bits)"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}}, "(gptq in the format 'marlin')"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "version": "GEMV"}}, "(awq in the format 'gemv')"),
        ({"layer_types": ["chunked_attention", "full_attention"]}, "layer type 'chunked_attention' is not supported"),
        ({"layer_types": ["full_attention"]}, "1 layer_types for 2 layers"),
        ({"hidden_size": "big"}, "Expected `int`, got `str` - at `$.hidden_size`"),
        ({"num_hidden_layers": 0}, "`$.num_hidden_layers`"),
        ({"num_key_value_heads": 3}, "4 attention heads, not a multiple of its 3"),
        ({"num_experts": 4, "num_experts_per_tok": 5}, "each token to 5 of 4 experts"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_what_is_not_supported_is_refused_and_never_ignored(folder: Path, changes: dict[str, object], said: str) -> None:
    configure(folder, **changes)
    with pytest.raises(LoadError) as refusal:
        read_config(files_of(folder))
    assert said in str(refusal.value)


def test_a_missing_size_is_named(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({key: value for key, value in CONFIG.items() if key != "hidden_size"}))
    with pytest.raises(LoadError, match="missing required field `hidden_size`"):
        read_config(files_of(folder))


def test_the_text_part_of_a_multimodal_checkpoint_is_read(folder: Path) -> None:
    text = {key: value for key, value in CONFIG.items() if key not in ("architectures", "model_type")}
    text |= {"head_dim": 4, "sliding_window": 4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    (folder / "config.json").write_text(json.dumps(outer))
    config = read_config(files_of(folder))
    extra = {f"model.layers.{i}.{name}_feedforward_layernorm.weight": torch.randn(16) for i in range(2) for name in ("pre", "post")}
    extra |= {f"model.layers.{i}.self_attn.{name}_norm.weight": torch.randn(4) for i in range(2) for name in ("q", "k")}
    named = {f"language_model.{name}": tensor for name, tensor in (tensors() | extra).items() if name != "lm_head.weight"}
    save_file(named | {"vision_tower.patch.weight": torch.ones(2)}, folder / "model.safetensors")
    assert config.windows == (4, 4)
    assert config.windowed_rope is not None
    assert config.windowed_rope.theta == 10_000.0
    assert logits_of(folder).isfinite().all()


def test_reference_weights_give_the_published_greedy_text(shared_data: Path) -> None:
    folder = shared_data / "weights" / "tinystories-656k"
    expected = json.loads((folder / "golden_greedy.json").read_text())["ids"]
    pages = Pages(load(folder), num_seqs=1, max_len=len(expected))
    tokens = expected[:1]
    while len(tokens) < len(expected):
        tokens.append(int(pages.step({0: tokens[-1:]})[0].argmax()))
    assert tokens == expected
