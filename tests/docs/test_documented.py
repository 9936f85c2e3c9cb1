"""What the documents say is so."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from penstock.core.settings import ROOMS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]


def rows(page: str) -> dict[str, str]:
    """The two-column tables of a page: name to text."""
    return dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|$", page, re.MULTILINE))


def test_the_readme_begins_with_the_two_commands() -> None:
    assert [line.split("#")[0].strip() for line in shell_lines(README)][:2] == ["make serve", "make test"]


def test_make_targets_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert named
    assert named <= targets


@pytest.mark.parametrize("line", sorted({line.split("#")[0].strip() for line in shell_lines(README) if line.startswith("penstock ")}))
def test_penstock_commands_in_the_readme_have_the_flags_that_they_use(line: str) -> None:
    _, command, *rest = line.split()
    action = rest[:1] if command == "keys" else []
    asked = [sys.executable, "-m", "penstock", command, *action, "--help"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert [flag for flag in re.findall(r"--[a-z-]+", " ".join(rest)) if flag not in shown] == []


def test_files_named_in_the_documents_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    links = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()] == []


def test_every_dependency_has_a_reason() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    declared = [re.split(r"[<>=;\[ ]", line)[0] for group in groups for line in group]
    assert sorted(rows((ROOT / "docs" / "dependencies.md").read_text())) == sorted(declared)


def test_every_setting_is_documented_with_its_default() -> None:
    import msgspec

    fields = {f"{room}.{field.name}": field for room, kind in ROOMS.items() for field in msgspec.structs.fields(kind)}
    empty = {path: field.default_factory for path, field in fields.items() if field.default is msgspec.NODEFAULT}
    defaults = {path: empty[path]() if path in empty else field.default for path, field in fields.items()}
    table = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \| .+ \|$", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE)
    assert dict(table) == {path: msgspec.json.encode(default).decode() for path, default in defaults.items()}


def test_the_changelog_has_this_version() -> None:
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()
