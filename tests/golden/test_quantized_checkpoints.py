"""Checkpoints in few bits: their codes are kept, and the model computes what the weights that they stand for compute."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from penstock.core.errors import LoadError
from penstock.engine.kernels.cpu.library import libraries
from penstock.engine.kernels.protocol import GatedMLP, Weight
from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.models.assembly import Form
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.ggml_blocks import read
from penstock.engine.models.load import is_quantized, load_model, load_weights, read_config, weights_bytes
from penstock.engine.models.size import Sizes, Target, format_for
from penstock.engine.models.weights import Weights
from penstock.engine.quant.formats import INT4, INT8
from penstock.engine.quant.quantized import Quantized
from penstock.engine.quant.rtn import round_to_nearest
from penstock.files import locate
from penstock.files.gguf import GGUFFile
from tests.golden.packed_checkpoints import CONFIG, Kind, save, write
from tests.golden.pages import Pages, load_native

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")
from tests.golden.architectures import Case, random_model  # noqa: E402 (needs the package above)
from tests.golden.gguf_export import export  # noqa: E402
from tests.golden.k_quants import quantize  # noqa: E402

TYPES = gguf.GGMLQuantizationType
TOKENS = [3, 4, 5, 6, 7, 8, 9]
AS_STORED = Form(None)
EXACT, ROUNDED = 1e-5, 1e-2  # errors of logits: no number was rounded; scales or minima were, to float16
LARGE = {  # rows that K-quants' blocks of 256 divide
    "vocab_size": 97, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 64, "initializer_range": 0.15, "eos_token_id": 2,
    "pad_token_id": None,
}  # fmt: skip


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def weights_of(path: Path, form: Form = AS_STORED) -> Weights:
    files = locate(str(path))
    return load_weights(files, read_config(files), form, silent)


def logits_of(path: Path, form: Form = AS_STORED) -> torch.Tensor:
    """By the reference kernels, which multiply by codes as they are."""
    decoder = Decoder(read_config(locate(str(path))), weights_of(path, form), ReferenceKernels(), 64)
    return Pages(decoder, 1, len(TOKENS)).step({0: TOKENS})[0]


def float_logits(path: Path) -> torch.Tensor:
    decoder = load_model(locate(str(path)), device="cpu", dtype=torch.float32, kernels=ReferenceKernels(), progress=silent)
    return Pages(decoder, 1, len(TOKENS)).step({0: TOKENS})[0]


def error(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square, relative to what is expected."""
    return float((logits - expected).norm() / expected.norm())


def matrices(weights: Weights) -> list[Weight]:
    found = [weights.embedding, weights.head.weight]
    for layer in weights.layers:
        assert isinstance(layer.mlp, GatedMLP)
        found += [layer.qkv.weight, layer.o.weight, layer.mlp.gate_up.weight, layer.mlp.down.weight]
    return found


def held_bytes(weights: Weights) -> int:
    """As `Packed` holds them: 4-bit codes in half bytes."""
    biases = [linear.bias for layer in weights.layers for linear in (layer.qkv, layer.o)]
    norms = [weights.norm] + [norm for layer in weights.layers for norm in (layer.attention_norm, layer.mlp_norm)]
    total = sum(tensor.nbytes for tensor in (*biases, *norms) if tensor is not None)
    for matrix in {id(matrix): matrix for matrix in matrices(weights)}.values():
        if isinstance(matrix, Quantized):
            total += matrix.codes.nbytes * matrix.bits // 8 + matrix.scales.nbytes * (1 if matrix.minima is None else 2)
        else:
            total += matrix.nbytes
    return total


# -- GGUF


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("llama")
    return folder, random_model(Case("llama", "llama", LARGE), folder)


def kinds(default: Any, **others: Any) -> Callable[[str, Any], Any]:
    """Matrices whose name holds a key of `others` are of that type, vectors are floats."""

    def kind(name: str, array: Any) -> Any:
        return TYPES.F32 if array.ndim == 1 else next((of for key, of in others.items() if key in name), default)

    return kind


def rounded_logits(model: Any, kind: Callable[[str, Any], Any]) -> torch.Tensor:
    """Of transformers' model, with the numbers that the file holds for each matrix."""
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v"}
    exact = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            array = parameter.numpy()
            stored = kind(next((short for long, short in names.items() if long in name), "other"), array)
            parameter.copy_(torch.from_numpy(gguf.quants.dequantize(quantize(array, stored), stored).reshape(array.shape)))
        logits: torch.Tensor = model(torch.tensor([TOKENS])).logits[0]
    model.load_state_dict(exact)
    return logits


FORMS = {
    "Q8_0": (8, 32),
    "Q4_0": (4, 32),
    "Q4_1": (4, 32),
    "Q5_0": (8, 32),
    "Q5_1": (8, 32),
    "Q4_K": (4, 32),
    "Q5_K": (8, 32),
    "Q6_K": (8, 16),
}


@pytest.mark.feature("GGUF", "quantized weights")
@pytest.mark.parametrize("name", FORMS)
def test_a_gguf_computes_with_its_codes(name: str, model: tuple[Path, Any], tmp_path: Path) -> None:
    (folder, exact), kind = model, kinds(TYPES[name])
    export(folder, tmp_path / "m.gguf", kind, quantize)
    found = matrices(weights_of(tmp_path / "m.gguf"))
    assert {(matrix.bits, matrix.group) for matrix in found if isinstance(matrix, Quantized)} == {FORMS[name]}
    assert all(isinstance(matrix, Quantized) for matrix in found)
    rounding = ROUNDED if name.endswith("K") else EXACT  # scales of scales are multiplied out
    assert error(logits_of(tmp_path / "m.gguf"), rounded_logits(exact, kind)) < rounding


@pytest.mark.parametrize("name", FORMS)
def test_codes_stand_for_what_ggml_reads(name: str, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).standard_normal((301, 768), dtype=np.float32)
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("t", quantize(numbers, TYPES[name]), raw_dtype=TYPES[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(tmp_path / "one.gguf")
    codes = read(file.data(file.tensors["t"]), file.tensors["t"].type, file.tensors["t"].shape)
    assert isinstance(codes, Quantized)
    assert int(codes.codes.max()) < 1 << codes.bits
    expected = torch.from_numpy(gguf.quants.dequantize(quantize(numbers, TYPES[name]), TYPES[name]))
    rounding = 2**-7 if name.endswith("K") else 0  # of scales and minima, in numbers up to 5
    torch.testing.assert_close(codes.dequantize(), expected, rtol=0, atol=rounding)


def test_values_in_more_bits_than_queries_lose_nothing(model: tuple[Path, Any], tmp_path: Path) -> None:
    """As in llama.cpp's Q4_K_M."""
    (folder, exact), kind = model, kinds(TYPES.Q4_K, attn_v=TYPES.Q6_K)
    export(folder, tmp_path / "m.gguf", kind, quantize)
    qkv = weights_of(tmp_path / "m.gguf").layers[0].qkv.weight
    assert isinstance(qkv, Quantized)
    assert (qkv.bits, qkv.group, qkv.minima is not None) == (8, 16, True)
    assert error(logits_of(tmp_path / "m.gguf"), rounded_logits(exact, kind)) < ROUNDED
    # where every part keeps its scales, fusing changes no bit
    export(folder, tmp_path / "n.gguf", kinds(TYPES.Q4_0, attn_v=TYPES.Q8_0, attn_k=TYPES.Q4_1), quantize)
    apart = load_weights_of_parts(tmp_path / "n.gguf")
    qkv = weights_of(tmp_path / "n.gguf").layers[0].qkv.weight
    assert isinstance(qkv, Quantized)
    assert torch.equal(qkv.dequantize(), apart)


def load_weights_of_parts(path: Path) -> torch.Tensor:
    """The same matrix put together from floats."""
    weight = weights_of(path, Form(torch.float32, few_bits=False)).layers[0].qkv.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def test_a_float_part_makes_the_matrix_a_float_one(model: tuple[Path, Any], tmp_path: Path) -> None:
    (folder, exact), kind = model, kinds(TYPES.Q8_0, attn_v=TYPES.F32)
    export(folder, tmp_path / "m.gguf", kind, quantize)
    assert isinstance(weights_of(tmp_path / "m.gguf").layers[0].qkv.weight, torch.Tensor)
    assert error(logits_of(tmp_path / "m.gguf"), rounded_logits(exact, kind)) < EXACT


# -- GPTQ and AWQ

PACKED = {
    "gptq": Kind(),
    "gptq with zero points": Kind(symmetrical=False),
    "gptq of 8 bits": Kind(bits=8),
    "gptq of 8 bits with zero points": Kind(bits=8, symmetrical=False),
    "gptq v2": Kind(symmetrical=False, version="gptq_v2"),
    "gptq of whole rows": Kind(group=-1),
    "gptq of small groups": Kind(group=16),
    "gptq with act-order": Kind(act_order=True, symmetrical=False),
    "gptq of 8 bits with act-order": Kind(bits=8, act_order=True),
    "awq": Kind(method="awq", symmetrical=False),
    "awq of whole rows": Kind(method="awq", symmetrical=False, group=-1),
}


@pytest.mark.feature("GPTQ", "AWQ", "quantized weights")
@pytest.mark.parametrize("name", PACKED)
def test_a_packed_checkpoint_computes_what_its_floats_compute(name: str, tmp_path: Path) -> None:
    kind = PACKED[name]
    packed, floats = write(tmp_path, kind)
    layer = weights_of(packed).layers[1]
    assert isinstance(layer.mlp, GatedMLP)
    for linear in (layer.qkv, layer.o, layer.mlp.gate_up, layer.mlp.down):
        weight = linear.weight
        assert isinstance(weight, Quantized)
        assert (weight.bits, weight.group) == (kind.bits, kind.group if kind.group > 0 else weight.shape[1])
        assert (weight.minima is None, weight.order is not None) == (kind.symmetrical, kind.act_order)
    expected = float_logits(floats)
    rounding = EXACT if kind.symmetrical else ROUNDED  # of zero * scale
    assert error(logits_of(packed), expected) < rounding
    assert error(float_logits(packed), expected) < rounding


@pytest.mark.skipif(not libraries(), reason="the native kernels are not built")
@pytest.mark.parametrize("name", PACKED)
def test_native_kernels_compute_with_the_same_codes(name: str, tmp_path: Path) -> None:
    packed, _ = write(tmp_path, PACKED[name])
    logits = Pages(load_native(packed), 1, len(TOKENS)).step({0: TOKENS})[0]
    assert error(logits, logits_of(packed)) < 0.02  # activations are rounded


AUTOGPTQ = {"bits": 4, "group_size": 32, "damp_percent": 0.01, "desc_act": False, "sym": True, "true_sequential": True}
AUTOAWQ = {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"}


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [(Kind(), "quantize_config.json", AUTOGPTQ), (Kind(method="awq", symmetrical=False), "quant_config.json", AUTOAWQ)],
)
def test_settings_may_be_in_the_file_of_the_quantizer(kind: Kind, name: str, settings: dict[str, object], tmp_path: Path) -> None:
    packed, floats = write(tmp_path, kind)
    (packed / "config.json").write_text(json.dumps(CONFIG))
    (packed / name).write_text(json.dumps(settings))
    (packed / "model.safetensors").rename(packed / "gptq_model-4bit-32g.safetensors")
    assert error(logits_of(packed), float_logits(floats)) < (EXACT if kind.symmetrical else ROUNDED)


def test_biases_of_zeros_that_quantizers_add_are_left_out(tmp_path: Path) -> None:
    packed, floats = write(tmp_path, Kind())
    tensors = load_file(packed / "model.safetensors") | {"model.layers.0.self_attn.k_proj.bias": torch.zeros(32)}
    save_file(tensors, packed / "model.safetensors")
    assert error(logits_of(packed), float_logits(floats)) < EXACT
    tensors["model.layers.0.self_attn.k_proj.bias"][3] = 1.0
    save_file(tensors, packed / "model.safetensors")
    with pytest.raises(LoadError, match=r"1 tensors unknown \(model.layers.0.self_attn.k_proj.bias"):
        weights_of(packed)


Q = "model.layers.0.self_attn.q_proj"


def without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.__delitem__(name)


def replaced(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    def change_tensors(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = change(tensors[name]).contiguous()

    return change_tensors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(f"{Q}.qzeros"), f"{Q}.weight is quantized and lacks its qzeros"),
        (without(f"{Q}.qweight"), f"{Q}.weight is quantized and lacks its qweight"),
        (replaced(f"{Q}.qweight", lambda words: words[:, :40]), r"do not fit each other: .*qweight \[8, 40\]"),
        (replaced(f"{Q}.qzeros", lambda words: words[:1]), r"do not fit each other: .*qzeros \[1, 8\]"),
        (replaced(f"{Q}.scales", lambda scales: scales[0]), r"do not fit each other: .*scales \[64\]"),
        (replaced(f"{Q}.g_idx", lambda groups: groups[:60]), r"do not fit each other: .*g_idx \[60\]"),
        (replaced(f"{Q}.qweight", lambda words: words.view(torch.int16)), "qweight of .* has type torch.int16"),
        (replaced(f"{Q}.g_idx", torch.zeros_like), "does not give each of its 2 groups 32 inputs"),
        (replaced(f"{Q}.g_idx", lambda groups: groups + 7), "does not give each of its 2 groups 32 inputs"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(change: Callable[[dict[str, torch.Tensor]], None], said: str, tmp_path: Path) -> None:
    packed, _ = write(tmp_path, Kind())
    tensors = load_file(packed / "model.safetensors")
    change(tensors)
    save_file(tensors, packed / "model.safetensors")
    with pytest.raises(LoadError, match=said):
        weights_of(packed)


def test_a_packed_matrix_of_another_shape_than_the_config_asks_for_is_refused(tmp_path: Path) -> None:
    packed, _ = write(tmp_path, Kind())
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 4}))
    with pytest.raises(LoadError, match=r"k_proj.weight has shape \[32, 64\], its config asks for \[64, 64\]"):
        weights_of(packed)


def test_columns_in_different_orders_make_a_float_matrix(tmp_path: Path) -> None:
    packed, _ = write(tmp_path, Kind(act_order=True))
    tensors = load_file(packed / "model.safetensors")
    tensors[f"{Q}.g_idx"] = tensors[f"{Q}.g_idx"].flip(0)
    save_file(tensors, packed / "model.safetensors")
    weights = weights_of(packed)
    assert isinstance(weights.layers[0].qkv.weight, torch.Tensor)
    assert isinstance(weights.layers[1].qkv.weight, Quantized)
    assert error(logits_of(packed), float_logits(packed)) < ROUNDED


# -- what weights are made of while they are loaded


def in_format(target: Any) -> Form:
    def quantize_matrix(name: str, tensor: torch.Tensor) -> torch.Tensor | Quantized:
        chosen = format_for(name, tensor.shape[1], Target(target))
        return tensor if chosen is None else round_to_nearest(tensor, chosen)

    return Form(None, quantize=quantize_matrix)


def test_float_weights_are_quantized_as_they_come(tmp_path: Path) -> None:
    _, floats = write(tmp_path, Kind())
    weights = weights_of(floats, in_format(INT4))
    assert isinstance(weights.embedding, Quantized)
    assert weights.embedding.bits == 8
    assert all(isinstance(matrix, Quantized) for matrix in matrices(weights))
    assert error(logits_of(floats, in_format(INT8)), float_logits(floats)) < 0.02


def test_each_complete_matrix_is_finished_once(tmp_path: Path) -> None:
    packed, _ = write(tmp_path, Kind())
    seen: dict[str, tuple[int, ...]] = {}

    def finish(name: str, weight: torch.Tensor | Quantized) -> torch.Tensor | Quantized:
        assert name not in seen
        seen[name] = tuple(weight.shape)
        return torch.full((1,), float(len(seen)))

    weights = weights_of(packed, Form(None, finish=finish))
    assert seen["model.layers.1.self_attn.qkv_proj.weight"] == (128, 64)
    assert seen["lm_head.weight"] == (50, 64)
    assert len(seen) == 2 + 2 * 4
    assert [float(matrix[0]) for matrix in matrices(weights) if isinstance(matrix, torch.Tensor)] != []


def test_weights_stay_in_the_floats_of_the_file(tmp_path: Path) -> None:
    _, floats = write(tmp_path, Kind())
    tensors = load_file(floats / "model.safetensors")
    save(floats, {name: tensor.bfloat16() if tensor.ndim == 2 else tensor.half() for name, tensor in tensors.items()}, {})
    weights = weights_of(floats)
    assert {matrix.dtype for matrix in matrices(weights) if isinstance(matrix, torch.Tensor)} == {torch.bfloat16}
    assert weights.norm.dtype is torch.float32
    assert logits_of(floats).isfinite().all()


SIZES = {
    "as stored": (Form(None), Sizes(None)),
    "float32": (Form(torch.float32, few_bits=False), Sizes(torch.float32, few_bits=False)),
    "int4": (in_format(INT4), Sizes(None, target=Target(INT4))),
}


@pytest.mark.parametrize("name", SIZES)
def test_headers_tell_how_much_memory_weights_take(name: str, model: tuple[Path, Any], tmp_path: Path) -> None:
    form, sizes = SIZES[name]
    folder, _ = model
    export(folder, tmp_path / "m.gguf", kinds(TYPES.Q4_K, attn_v=TYPES.Q6_K, ffn_down=TYPES.F16), quantize)
    gptq, floats = write(tmp_path, Kind(group=-1))
    awq, _ = write(tmp_path / "packed", Kind(method="awq", symmetrical=False))
    for path in (tmp_path / "m.gguf", gptq, awq, floats):
        files = locate(str(path))
        assert is_quantized(files) == (path != floats)
        assert weights_bytes(files, read_config(files), sizes) == held_bytes(weights_of(path, form)), path


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the most memory that a process held")
def test_loading_takes_the_memory_of_the_weights_and_little_more(tmp_path: Path) -> None:
    script = Path(__file__).with_name("loading_memory.py")
    told = subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True, text=True, timeout=60).stdout
    for name, (held, peak, after) in json.loads(told).items():
        assert peak < (2.0 if name == "rounded" else 1.6) * held, f"{name}: {held} bytes of weights took {peak} at most"
        threads = 24 * 2**20 if name == "rounded" else 0  # what the allocator keeps for those that round
        assert after < 1.2 * held + threads, f"{name}: {held} bytes of weights left {after} in use"
