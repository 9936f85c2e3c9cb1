"""docs/features.md is made from the tests' markers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "features.py"


@pytest.fixture(scope="module")
def features() -> ModuleType:
    spec = importlib.util.spec_from_file_location("features", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tests_folder(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = feature\nasyncio_default_fixture_loop_scope = function\n")
    return tmp_path / "tests"


def test_a_marked_test_fills_the_cells_of_its_pairs(features: ModuleType, tests_folder: Path) -> None:
    marks = (
        "import pytest\n"
        '@pytest.mark.feature("MoE")\ndef test_a(): ...\n'
        '@pytest.mark.feature("preemption", "prefix cache")\nasync def test_b(): ...\n'
    )
    (tests_folder / "test_x.py").write_text(marks)
    cells = features.collect(tests_folder.parent)
    b = "tests/test_x.py::test_b"
    pairs = [("prefix cache", "prefix cache"), ("prefix cache", "preemption"), ("preemption", "preemption")]
    assert cells == {("MoE", "MoE"): "tests/test_x.py::test_a", **dict.fromkeys(pairs, b)}
    page = features.render(cells)
    row = next(line for line in page.splitlines() if line.startswith("| **preemption**"))
    columns = next(line for line in page.splitlines() if line.startswith("|  |")).split(" | ")
    assert row.split(" | ")[columns.index("prefix cache")] == "[2](#tests)"
    assert row.count("(#tests)") == 2
    assert "1. `tests/test_x.py::test_a`\n2. `tests/test_x.py::test_b`" in page


def test_a_feature_that_is_not_in_the_list_is_refused(features: ModuleType, tests_folder: Path) -> None:
    (tests_folder / "test_y.py").write_text('import pytest\n@pytest.mark.feature("prefix cash")\ndef test_a(): ...\n')
    with pytest.raises(ValueError, match="prefix cash"):
        features.collect(tests_folder.parent)


@pytest.mark.slow
def test_the_page_is_up_to_date(features: ModuleType, request: pytest.FixtureRequest) -> None:
    stale = "docs/features.md is not what the tests say now; run `make features`"
    if is_whole(request.session):  # what is collected already need not be collected again
        marks = features.Marks()
        marks.pytest_collection_finish(request.session)
        assert features.PAGE.read_text() == features.render(features.cells_of(marks)), stale
    else:
        done = subprocess.run([sys.executable, SCRIPT, "--check"], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{stale}\n{done.stderr}"


def is_whole(session: pytest.Session) -> bool:
    """Whether every test was collected."""
    chosen = any(session.config.getoption(name) for name in ("keyword", "markexpr", "deselect", "lf"))
    return not chosen and {item.path for item in session.items} >= set((SCRIPT.parents[1] / "tests").rglob("test_*.py"))
