"""The memory plan: what "auto" becomes, what fits, and errors whose advice works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from penstock.core.config import EngineSpec
from penstock.core.errors import ConfigError, MemoryPlanError
from penstock.engine.memory import Holding, available_bytes, cgroup_free_bytes, plan_memory, resolve_device, resolve_dtype
from penstock.engine.messages import MemoryPlan
from penstock.engine.models.config import ModelConfig, Rope

GIB = 2**30
AUTO = EngineSpec()


def model(*, hidden: int, layers: int, heads: int, kv_heads: int, mlp: int, vocab: int, positions: int) -> ModelConfig:
    return ModelConfig(
        architecture="llama", vocab_size=vocab, hidden_size=hidden, intermediate_size=mlp, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=64, max_position_embeddings=positions, rope=Rope(dim=64), windows=(None,) * layers,
        attention_scale=0.125, tie_word_embeddings=True,
    )  # fmt: skip


MINI = model(hidden=256, layers=6, heads=4, kv_heads=2, mlp=768, vocab=4096, positions=2048)
HALF_B = model(hidden=896, layers=24, heads=14, kv_heads=2, mlp=4864, vocab=151_936, positions=32_768)


def plan(config: ModelConfig, available: float, spec: EngineSpec = AUTO, device: str = "cpu") -> MemoryPlan:
    dtype = resolve_dtype(spec.dtype, torch.device(device))
    holding = Holding(
        device=torch.device(device), dtype=dtype, weights="float", weights_bytes=config.num_parameters * dtype.itemsize,
        kv_format="fp32", kv_token_bytes=config.kv_bytes_per_token(dtype), kernels="torch",
    )  # fmt: skip
    return plan_memory(config, spec, holding, int(available))


def total(made: MemoryPlan) -> int:
    return made.weights_bytes + made.activation_bytes + made.kv_bytes


def test_a_small_model_on_a_laptop_takes_little_and_serves_many() -> None:
    made = plan(MINI, 4 * GIB)
    assert total(made) < 2 * GIB
    assert made.max_num_seqs == 256
    assert made.num_blocks * made.block_size >= 256 * 512
    assert made.max_model_len == 2048


def test_half_a_billion_parameters_fit_a_machine_of_24_gib() -> None:
    made = plan(HALF_B, 22 * GIB)
    assert made.dtype == "float32"
    assert made.weights_bytes == HALF_B.num_parameters * 4
    assert made.kv_bytes <= 4 * GIB
    assert made.max_model_len == 32_768
    assert 256 <= made.max_step_tokens <= 1024


def test_on_cuda_the_kv_cache_takes_what_is_left() -> None:
    made = plan(HALF_B, 80 * GIB, device="cuda")
    assert made.dtype == "bfloat16"
    assert 0.89 * 80 * GIB < total(made) <= 0.9 * 80 * GIB


@pytest.mark.parametrize("available", [2.6, 3, 4, 8, 16, 64])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plan_never_exceeds_what_is_available(available: float, device: str) -> None:
    made = plan(HALF_B, available * GIB, device=device)
    assert total(made) <= available * GIB * 0.9
    assert made.max_model_len <= made.num_blocks * made.block_size
    assert made.kv_bytes == made.num_blocks * made.block_size * HALF_B.kv_bytes_per_token(getattr(torch, made.dtype))


def test_what_is_written_is_taken_as_it_is() -> None:
    spec = EngineSpec(max_model_len=1000, kv_bytes=GIB, max_step_tokens=77, max_num_seqs=5, block_size=32, dtype="bfloat16")
    made = plan(HALF_B, 22 * GIB, spec)
    assert (made.max_model_len, made.max_step_tokens, made.max_num_seqs, made.block_size) == (1000, 77, 5, 32)
    assert made.dtype == "bfloat16"
    assert GIB - 32 * 24 * 2 * 128 * 2 < made.kv_bytes <= GIB


def test_little_memory_shortens_the_context_that_auto_gives() -> None:
    made = plan(HALF_B, 2.6 * GIB)
    assert 512 <= made.max_model_len < 32_768


def test_a_long_context_that_is_asked_for_gets_more_than_the_default() -> None:
    long = model(hidden=896, layers=24, heads=14, kv_heads=2, mlp=4864, vocab=151_936, positions=400_000)
    assert plan(long, 30 * GIB).kv_bytes <= 4 * GIB
    assert plan(long, 30 * GIB, EngineSpec(max_model_len=300_000)).num_blocks * 16 >= 300_000


def suggested(error: MemoryPlanError, flag: str) -> int:
    found = re.search(rf"{flag} (\d+)", error.hint or "")
    assert found, error.hint
    return int(found[1])


def test_a_context_that_does_not_fit_names_one_that_does() -> None:
    with pytest.raises(MemoryPlanError, match=r"max_model_len 32768 needs 768.0 MiB of KV, \d+\.\d MiB are free") as caught:
        plan(HALF_B, 2.9 * GIB, EngineSpec(max_model_len=32_768))
    fits = suggested(caught.value, "--max-model-len")
    assert plan(HALF_B, 2.9 * GIB, EngineSpec(max_model_len=fits)).max_model_len == fits


def test_kv_bytes_too_small_for_the_context_name_both_ways_out() -> None:
    with pytest.raises(MemoryPlanError, match="needs 768.0 MiB of KV, kv_bytes is 256.0 MiB") as caught:
        plan(HALF_B, 22 * GIB, EngineSpec(max_model_len=32_768, kv_bytes=GIB // 4))
    fits = suggested(caught.value, "--max-model-len")
    assert plan(HALF_B, 22 * GIB, EngineSpec(max_model_len=fits, kv_bytes=GIB // 4)).max_model_len == fits
    enough = suggested(caught.value, "--kv-bytes") * 2**20
    assert plan(HALF_B, 22 * GIB, EngineSpec(max_model_len=32_768, kv_bytes=enough)).max_model_len == 32_768


def test_kv_bytes_beyond_the_memory_name_the_most_that_fits() -> None:
    with pytest.raises(MemoryPlanError, match="kv_bytes is 100.0 GiB") as caught:
        plan(HALF_B, 22 * GIB, EngineSpec(kv_bytes=100 * GIB))
    assert plan(HALF_B, 22 * GIB, EngineSpec(kv_bytes=suggested(caught.value, "--kv-bytes") * 2**20)).kv_bytes


def test_weights_that_do_not_fit_are_named() -> None:
    with pytest.raises(MemoryPlanError, match=r"needs 1\.8 GiB for weights.* of 1\.0 GiB may be used on cpu") as caught:
        plan(HALF_B, GIB)
    assert "bfloat16" in (caught.value.hint or "")
    with pytest.raises(MemoryPlanError) as caught:
        plan(HALF_B, GIB, EngineSpec(dtype="bfloat16"))
    assert "bfloat16" not in (caught.value.hint or "")


def test_a_context_beyond_the_models_positions_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_model_len is 5000, the model has positions for 2048"):
        plan(MINI, 22 * GIB, EngineSpec(max_model_len=5000))


def test_device_and_dtype() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert resolve_dtype("float16", torch.device("cpu")) == torch.float16


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_says_so() -> None:
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="no CUDA device"):
        resolve_device("cuda")


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)


def test_control_groups_of_version_2_bound_the_memory(tmp_path: Path) -> None:
    group(tmp_path / "fs/a/b", {"memory.max": "max\n", "memory.current": "500\n"})
    group(tmp_path / "fs/a", {"memory.max": "1000\n", "memory.current": "900\n", "memory.stat": "anon 700\ninactive_file 200\n"})
    group(tmp_path / "fs", {})
    (tmp_path / "self").write_text("0::/a/b\n")
    assert cgroup_free_bytes(tmp_path / "fs", tmp_path / "self") == [300]


def test_control_groups_of_version_1_bound_the_memory(tmp_path: Path) -> None:
    group(
        tmp_path / "fs/memory/job",
        {"memory.limit_in_bytes": "1000\n", "memory.usage_in_bytes": "400\n", "memory.stat": "total_inactive_file 50\n"},
    )
    (tmp_path / "self").write_text("3:cpuset:/\n4:memory:/job\n0::/\n")
    assert cgroup_free_bytes(tmp_path / "fs", tmp_path / "self") == [650]


def test_a_container_that_shows_the_hosts_path_still_finds_its_limit(tmp_path: Path) -> None:
    group(tmp_path / "fs", {"memory.max": "1000", "memory.current": "0"})
    (tmp_path / "self").write_text("0::/docker/0123\n")
    assert cgroup_free_bytes(tmp_path / "fs", tmp_path / "self") == [1000]


def test_machines_without_control_groups_have_no_such_limit(tmp_path: Path) -> None:
    assert cgroup_free_bytes(tmp_path, tmp_path / "none") == []


def test_this_machine_has_some_memory() -> None:
    assert 2**20 < available_bytes(torch.device("cpu")) < 2**50


@pytest.mark.gpu
def test_the_gpu_has_some_memory() -> None:
    assert 2**30 < available_bytes(torch.device("cuda")) < 2**50


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
@pytest.mark.parametrize("softcap", [[], ["30.0"]], ids=["plain", "softcapped"])
def test_a_step_takes_no_more_than_is_planned_for_it(softcap: list[str]) -> None:
    script = Path(__file__).parent / "step_memory.py"
    done = subprocess.run([sys.executable, str(script), *softcap], capture_output=True, text=True, timeout=100, check=True)
    planned, measured = map(int, done.stdout.split())
    assert planned / 8 < measured < planned
