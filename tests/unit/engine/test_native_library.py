"""The native kernels as an installation has them: built or not, of this version or another."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from msgspec import structs

from penstock.core.config import DEFAULT_MODEL, EngineSpec
from penstock.core.errors import ConfigError, LoadError
from penstock.core.types import Sampling
from penstock.engine.kernels.cpu import library
from penstock.engine.kernels.cpu.library import libraries
from penstock.engine.kernels.cpu.packed import obstacle
from penstock.engine.loading import load_engine
from penstock.engine.messages import Job
from penstock.engine.models.config import MoE
from penstock.engine.models.load import read_config
from penstock.engine.models.native import why_not_native
from penstock.files import locate

ROOT = Path(__file__).parents[3]


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)


@pytest.mark.usefixtures("without_kernels")
def test_without_them_the_engine_answers_and_says_once_what_to_install(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine = load_engine(DEFAULT_MODEL, EngineSpec(), lambda *_: None)
    assert engine.info.plan.kernels == "torch"
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "C++ compiler" in warning
    engine.add(Job(id="a", prompt=(1, 5, 9), sampling=Sampling(temperature=0.0, max_tokens=3, ignore_eos=True)))
    produced = [token for _ in range(3) for output in engine.step() for token in output.token_ids]
    assert len(produced) == 3


@pytest.mark.usefixtures("without_kernels")
@pytest.mark.parametrize("spec", [{"weights": "int8"}, {"kv_format": "int8"}, {"kernels": "portable"}])
def test_without_them_what_needs_them_is_refused(spec: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"native CPU kernels|this processor has torch"):
        load_engine(DEFAULT_MODEL, EngineSpec(**spec), lambda *_: None)


@pytest.mark.parametrize("kernels", [*libraries(), "torch"])
def test_kernels_are_those_that_were_asked_for(kernels: str) -> None:
    assert load_engine(DEFAULT_MODEL, EngineSpec(kernels=kernels), lambda *_: None).info.plan.kernels == kernels


def test_kernels_that_cannot_run_a_model_are_refused_by_name_when_asked_for() -> None:
    with pytest.raises(ConfigError, match="block of 8 tokens"):
        load_engine(DEFAULT_MODEL, EngineSpec(kernels=libraries()[0], block_size=8), lambda *_: None)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_library_of_another_build_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ["pool_new", "pool_free", "run", "codes_bytes", "scales_bytes", "activation_bytes", "kv_block_bytes", "pack", "unpack_row"]
    stubs = "".join(f"void penstock_{name}(void) {{}}\n" for name in names)
    source = tmp_path / "old.c"
    source.write_text(
        f"int penstock_level(void) {{ return 0; }}\nint penstock_sizes(int *sizes, int n) {{ sizes[0] = n; return 7; }}\n{stubs}"
    )
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(tmp_path / "penstock-portable.so")], check=True)
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    with pytest.raises(LoadError, match="another build"):
        library.Library("portable")


@pytest.mark.parametrize(
    ("compiler", "word"), [("/no/such/compiler", "cannot be run"), ("false", "false failed"), ("c++ --no-such-flag", "no-such-flag")]
)
def test_a_compiler_that_fails_is_named(tmp_path: Path, compiler: str, word: str) -> None:
    kernels = "src/penstock/engine/kernels/cpu"
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/build_native.py", tmp_path / "scripts")
    shutil.copytree(ROOT / kernels / "source", tmp_path / kernels / "source")
    command = [sys.executable, tmp_path / "scripts/build_native.py"]
    done = subprocess.run(command, check=False, env={**os.environ, "CXX": compiler}, capture_output=True, text=True)
    assert done.returncode == 1
    assert word in done.stderr
    assert list((tmp_path / kernels / "lib").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux" or not libraries(), reason="limits of memory are Linux's")
def test_threads_that_cannot_be_started_are_an_error() -> None:
    """Not the end of the process: there is memory for all threads' scratch, and for the stacks of a few."""
    program = """
import resource
from pathlib import Path
from penstock.core.errors import LoadError
from penstock.engine.kernels.cpu.library import Pool, best_library
library, used = best_library(), int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20), -1))
for threads in (0, 100):
    try:
        Pool(library, threads)
    except LoadError as error:
        print(error.message)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.count("cannot be started"), done.stderr) == (2, "")


def test_sizes_beyond_what_they_have_room_for_are_refused() -> None:
    """A row that does not fit a thread's scratch memory, and a matrix whose rows do not fit 32 bits."""
    config = read_config(locate(DEFAULT_MODEL))
    for field in ("hidden_size", "intermediate_size"):
        assert "longer than" in (why_not_native(structs.replace(config, **{field: 2**20 + 16}), 16) or "")
    moe = MoE(num_experts=2**20, top_k=1, intermediate_size=64, renormalize=True, layers=(True,))
    assert "longer than" in (why_not_native(structs.replace(config, moe=moe), 16) or "")
    assert "rows or columns" in (obstacle(torch.zeros(1, 1).expand(2**31, 1)) or "")
