"""GGUF files give the logits that transformers gives for the model they were made from, and quantized blocks decode as ggml's do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penstock.core.errors import LoadError
from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.models.ggml_blocks import dequantize
from penstock.engine.models.load import load_model, read_config
from penstock.files import locate
from penstock.files.gguf import GGUFFile
from tests.golden.architectures import Case, random_model
from tests.golden.pages import Pages

gguf = pytest.importorskip("gguf")
from tests.golden.gguf_export import export  # noqa: E402 (needs the package above)

F32, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0
SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.15, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied-biased": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama-other-head-dim": ("llama", {"head_dim": 12}),
    "llama-rope-llama3": ("llama", {"rope_parameters": LLAMA3}),
    "llama-rope-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}}),
    "llama-rope-yarn": ("llama", {"rope_parameters": YARN}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {"sliding_window": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", {"sliding_window": 8, "query_pre_attn_scalar": 8, "num_hidden_layers": 7}),
    "phi3": ("phi3", {"sliding_window": 11, "partial_rotary_factor": 0.5}),
    "phi3-longrope": ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16}),
    "granite": ("granite", {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 4.0}),
    "mixtral": ("mixtral", {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen3moe": ("qwen3_moe", {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "norm_topk_prob": True}),
}  # fmt: skip


def saved(folder: Path, model_type: str, options: dict[str, Any]) -> Any:
    """A random model of transformers, saved to `folder`."""
    return random_model(Case(model_type, model_type, {**SMALL, **options}), folder)


def logits_of(path: Path, tokens: list[int]) -> torch.Tensor:
    decoder = load_model(
        locate(str(path)), device="cpu", dtype=torch.float32, kernels=ReferenceKernels(), progress=lambda stage, done, total: None
    )
    return Pages(decoder, 1, len(tokens)).step({0: tokens})[0]


@pytest.mark.feature("GGUF", "MoE", "sliding window")
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_the_model_that_was_converted(case: str, tmp_path: Path) -> None:
    model = saved(tmp_path, *CASES[case])
    export(tmp_path, tmp_path / "model.gguf")
    tokens = torch.randint(3, 97, (1, 40))
    with torch.no_grad():
        expected = model(tokens).logits[0]
    torch.testing.assert_close(logits_of(tmp_path / "model.gguf", tokens[0].tolist()), expected, atol=1e-4, rtol=1e-4)
    assert read_config(locate(str(tmp_path / "model.gguf"))).eos_token_ids == (2,)


def test_a_quantized_model_computes_with_its_rounded_weights(tmp_path: Path) -> None:
    model = saved(tmp_path, "llama", {"hidden_size": 64, "intermediate_size": 96})
    export(tmp_path, tmp_path / "model.gguf", lambda name, array: Q8_0 if name.endswith("ffn_up.weight") else F32)
    tokens = torch.randint(3, 97, (1, 20))
    with torch.no_grad():
        exact = model(tokens).logits[0]
        for layer in model.model.layers:
            weight = layer.mlp.up_proj.weight
            rounded = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), Q8_0), Q8_0)
            weight.copy_(torch.from_numpy(rounded))
        expected = model(tokens).logits[0]
    assert not torch.allclose(exact, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits_of(tmp_path / "model.gguf", tokens[0].tolist()), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"])
def test_any_bytes_decode_as_in_ggml(name: str, tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType[name]
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rows, row_bytes = 301, 3 * 256 // block_size * block_bytes
    raw = np.random.default_rng(0).integers(0, 256, (rows, row_bytes), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("t", raw, raw_shape=raw.shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(tmp_path / "one.gguf")
    tensor = file.tensors["t"]
    decoded = dequantize(file.data(tensor), tensor.type, tensor.shape).float()
    with np.errstate(all="ignore"):
        expected = torch.from_numpy(gguf.quants.dequantize(raw, kind).astype(np.float32))
    torch.testing.assert_close(decoded, expected, rtol=1e-6, atol=0, equal_nan=True)


def write_metadata_only(path: Path, architecture: str, **values: int) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        writer.add_uint32(key.replace("__", "."), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_an_unknown_architecture_names_the_closest(tmp_path: Path) -> None:
    write_metadata_only(tmp_path / "m.gguf", "qwen3moo")
    with pytest.raises(LoadError, match="'qwen3moo' is not supported") as caught:
        read_config(locate(str(tmp_path / "m.gguf")))
    assert "closest: qwen3moe" in str(caught.value)


def test_a_part_of_a_split_model_says_how_to_join_it(tmp_path: Path) -> None:
    write_metadata_only(tmp_path / "m.gguf", "llama", split__count=3)
    with pytest.raises(LoadError, match="one of 3 parts.*--merge"):
        read_config(locate(str(tmp_path / "m.gguf")))


def test_metadata_that_is_not_complete_is_refused(tmp_path: Path) -> None:
    write_metadata_only(tmp_path / "m.gguf", "llama", llama__embedding_length=32)
    with pytest.raises(LoadError, match="not complete"):
        read_config(locate(str(tmp_path / "m.gguf")))


def test_more_layers_than_tensors_are_refused_before_anything_is_made_of_them(tmp_path: Path) -> None:
    sizes = {"llama__embedding_length": 32, "llama__attention__head_count": 4, "llama__block_count": 2**32 - 1}
    write_metadata_only(tmp_path / "m.gguf", "llama", **sizes)
    with pytest.raises(LoadError, match="4294967295 layers"):
        read_config(locate(str(tmp_path / "m.gguf")))
