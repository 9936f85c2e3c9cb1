"""The size and the names of things. What a tool cannot lint is counted here."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
CODE = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "scripts").rglob("*.py"))]
FORBIDDEN = re.compile(r"(Base|Manager|Handler|Helper|Util|Utils|Mixin)$|^(Base|Abstract)[A-Z]")
BINARY = {".safetensors", ".png", ".gguf", ".bin"}
# A path of somebody's machine, or a package mirror: neither means anything to the next reader.
PRIVATE = re.compile(r"/((home|Users)/(?!me\b)|root/|opt/|work/)\w|\b(pypi|artifactory|nexus|devpi|mirror)\.[\w.-]+|pythonhosted", re.ASCII)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / line for line in listed.stdout.splitlines())
    return [path for path in paths if path.is_file() and path.suffix not in BINARY]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


def test_functions_are_short() -> None:
    sizes = {f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": lines(node) for path in SOURCES for node in functions(path)}
    assert {name: size for name, size in sizes.items() if size > 60} == {}
    assert sorted(sizes.values())[int(len(sizes) * 0.95) - 1] <= 45


def test_names_say_what_a_thing_is() -> None:
    classes = [node.name for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if FORBIDDEN.search(name)] == []


def test_the_source_has_no_bare_assert() -> None:
    found = [f"{path}:{node.lineno}" for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
    assert found == []


def test_no_model_is_ever_unpickled() -> None:
    loads = re.compile(r"\btorch\.load\(|\bimport pickle\b|\bpickle\.loads?\(")
    assert [str(path) for path in SOURCES if loads.search(path.read_text())] == []


def test_every_module_says_what_it_is_for() -> None:
    bare = [
        str(path.relative_to(ROOT)) for path in SOURCES if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert bare == []


def test_tracked_files_name_no_private_place() -> None:
    this = Path(__file__).resolve()
    texts = {path: path.read_text(errors="replace") for path in tracked_files() if path != this}
    found = {str(path.relative_to(ROOT)): match[0] for path, text in texts.items() if (match := PRIVATE.search(text))}
    assert found == {}
