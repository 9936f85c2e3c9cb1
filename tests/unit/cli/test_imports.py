"""Starting costs nothing: what must not be loaded, and how long it may take."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "starlette", "uvicorn", "tokenizers", "transformers", "huggingface_hub")


def loaded_by(code: str, *suspects: str) -> set[str]:
    report = f"import sys\n{code}\nprint(*({set(suspects)} & set(sys.modules)))"
    return set(subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("code", ["import penstock", "from penstock.cli.parser import parse; parse(['serve'])"])
def test_the_package_and_its_command_line_load_nothing_heavy(code: str) -> None:
    assert loaded_by(code, *HEAVY) == set()


@pytest.mark.parametrize(
    "module", ["gateway", "gateway.app", "pipeline", "engine", "engine.messages", "engine.client", "text", "files", "app.stack"]
)
def test_only_the_engines_process_loads_torch(module: str) -> None:
    assert loaded_by(f"import penstock.{module}", "torch", "transformers") == set()


@pytest.mark.parametrize("arguments", [["-c", "import penstock"], ["-m", "penstock", "--help"]])
def test_help_is_there_at_once(arguments: list[str]) -> None:
    assert min(cpu_seconds(arguments) for _ in range(3)) < 0.3


def cpu_seconds(arguments: list[str]) -> float:
    """Processor time of one start: what it takes on an idle machine, whatever else runs on this one."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_the_notebook_names_are_found_when_asked_for() -> None:
    assert loaded_by("import penstock; penstock.Sampling(temperature=0); penstock.Message(role='user', content='x')", "torch") == set()
    with pytest.raises(AttributeError, match="has no attribute 'Engin'"):
        __import__("penstock").Engin  # noqa: B018
