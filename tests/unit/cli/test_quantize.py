"""`penstock quantize`: a folder in, a smaller folder out, or nothing."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from quantizable import folder_of
from safetensors import SafetensorError
from safetensors.torch import load_file

from penstock.cli import main
from penstock.engine.kernels.protocol import AttentionInputs
from penstock.engine.kernels.reference import ReferenceKernels
from penstock.engine.models.assembly import Form
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.load import load_weights, read_config
from penstock.engine.models.weights import Weights
from penstock.engine.quant import ahead, checkpoint
from penstock.engine.quant.formats import parse_format
from penstock.engine.quant.quantized import Quantized
from penstock.engine.quant.rtn import round_to_nearest
from penstock.files import locate

TEXT = "The quick brown fox jumps over the lazy dog, and 7 times 8 is 56. " * 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return folder_of(tmp_path / "model")


def loaded(folder: Path) -> Weights:
    files = locate(str(folder))
    return load_weights(files, read_config(files), Form(None), lambda *_: None)


def test_rounded_weights_come_back_as_they_were_made(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made"
    assert main(["quantize", str(folder), str(out), "--format", "int4"]) == 0
    assert re.search(r"made: int4 by rtn, 0\.\d MiB, was 0\.\d", capsys.readouterr().out)
    assert {file.name for file in out.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    source = load_file(folder / "model.safetensors")
    qkv = loaded(out).layers[1].qkv.weight
    assert isinstance(qkv, Quantized)
    rows = torch.cat([source[f"model.layers.1.self_attn.{part}_proj.weight"] for part in "qkv"])
    assert torch.equal(qkv.dequantize(), round_to_nearest(rows, parse_format("int4")).dequantize())
    assert torch.equal(load_file(out / "model.safetensors")["model.embed_tokens.weight"], source["model.embed_tokens.weight"].half())


@pytest.mark.parametrize(("method", "name"), [("gptq", "int4-g64-asym"), ("awq", "int4"), ("smoothquant", "int8-channel")])
def test_methods_that_read_a_text(method: str, name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made"
    reading = ["--calibration", str(tmp_path / "text.txt"), "--windows", "4", "--context", "64"]
    assert main(["quantize", str(folder), str(out), "--format", name, "--method", method, *reading]) == 0
    said = json.loads((out / "config.json").read_text())["quantization_config"]
    form = parse_format(name)
    assert (said["bits"], said["group_size"], said["sym"]) == (form.bits, form.group or -1, not form.asymmetrical)
    stays = {f"model.layers.{i}.mlp.down_proj.weight" for i in range(2)} if name == "int4-g64-asym" else set()  # 96 inputs
    assert set(re.findall(r"^(\S+) stays in float", capsys.readouterr().out, re.MULTILINE)) == stays
    assert set(said.get("dynamic", {})) == {f"-:^{re.escape(each.removesuffix('.weight'))}$" for each in stays}
    before, after = loaded(folder), loaded(out)
    assert (after.layers[0].attention_norm != before.layers[0].attention_norm).any() == (method != "gptq")


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_key_value_heads": 4},
        {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "tie_word_embeddings": False},
        {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "query_pre_attn_scalar": 16, "sliding_window": 32},
        {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "attention_bias": True, "pad_token_id": 0},
    ],
    ids=lambda changes: str(changes["model_type"]),
)
def test_whatever_the_architecture_the_model_stays_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    """Biases, norms that are stored less one, fused projections: scales moved by AWQ must end up where they belong."""
    (tmp_path / "text.txt").write_text(TEXT)
    folder, out = folder_of(tmp_path / "model", **changes), tmp_path / "made"
    reading = ["--calibration", str(tmp_path / "text.txt"), "--windows", "4", "--context", "64"]
    assert main(["quantize", str(folder), str(out), "--format", "int8", "--method", "awq", *reading]) == 0
    before, after = logits(folder), logits(out)
    assert float((after - before).norm() / before.norm()) < 0.1


def logits(folder: Path) -> torch.Tensor:
    files = locate(str(folder))
    weights = load_weights(files, read_config(files), Form(torch.float32, few_bits=False), lambda *_: None)
    decoder = Decoder(read_config(files), weights, ReferenceKernels(), 48)
    ids = torch.arange(48) * 37 % 2048
    inputs = AttentionInputs([48], [48], torch.zeros(1, 1, dtype=torch.int64), torch.arange(48), torch.arange(48), 48)
    return decoder.logits(decoder.forward(ids, inputs, decoder.allocate_kv(1, 48)))


def test_a_quantized_model_is_refused_by_name(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(folder), str(tmp_path / "once")]) == 0
    assert main(["quantize", str(tmp_path / "once"), str(tmp_path / "twice")]) == 2
    assert "is quantized already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--format", "int3"], "unknown weight format 'int3'"),
        (["--method", "gptq"], "the method gptq needs --calibration FILE"),
        (["--calibration", "text.txt"], "the method rtn takes no --calibration"),
        (["--method", "awq", "--calibration", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--method", "awq", "--calibration", "text.txt", "--context", "100000"], "a window takes 100000"),
        (["--method", "awq", "--calibration", "text.txt", "--windows", "1", "--context", "257"], "the model has positions for 256"),
        (["--method", "awq", "--calibration", "text.txt", "--windows", "9999", "--context", "64"], "9999 are asked for"),
        (["--method", "awq", "--calibration", "text.txt", "--windows", "0"], "--windows is 0"),
    ],
)
def test_mistakes_are_told_before_any_work(
    flags: list[str], said: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["quantize", str(folder), "made", *flags]) == 2
    assert said in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"model", "text.txt"}


def test_a_folder_that_is_not_empty_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(file.stat().st_mtime_ns for file in folder.iterdir())
    assert main(["quantize", "penstock-mini", str(folder)]) == 2
    assert "is a folder that is not empty" in capsys.readouterr().err
    assert sorted(file.stat().st_mtime_ns for file in folder.iterdir()) == before


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 2)])
def test_what_breaks_off_leaves_nothing(
    error: BaseException, code: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(ahead, "write_config", broken)  # once the weights are written
    assert main(["quantize", str(folder), str(tmp_path / "made")]) == code
    assert {file.name for file in tmp_path.iterdir()} == {"model", "text.txt"}


def test_a_process_that_is_told_to_end_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "write_config", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        main(["quantize", str(folder), str(tmp_path / "made")])
    assert {file.name for file in tmp_path.iterdir()} == {"model", "text.txt"}


def test_a_full_disk_is_told_as_such(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert main(["quantize", str(folder), str(tmp_path / "made")]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"model", "text.txt"}
