"""What the documents say is so."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from penstock.cli.parser import parse
from penstock.core.config import RuleSettings
from penstock.core.settings import ROOMS, resolve

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_penstock_commands_have_the_arguments_that_they_are_shown_with(page: Path) -> None:
    for line in shell_lines(page.read_text()):
        if line.startswith("penstock "):
            words = shlex.split(re.split(r" [&>]", line)[0], comments=True)
            assert parse(words[1:]).command == words[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configs_are_such_as_penstock_takes(page: Path, tmp_path: Path) -> None:
    for config in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        path = tmp_path / "penstock.toml"
        path.write_text(config)
        if not config.startswith("# prices.toml"):  # a price book, not a config
            resolve(file=path)


def test_files_named_in_the_documents_exist() -> None:
    links = [(page, target) for page in (*PAGES, ROOT / "CONTRIBUTING.md") for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
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


def test_every_setting_of_a_rule_is_documented() -> None:
    page = (ROOT / "docs" / "guardrails.md").read_text()
    table = page.partition("## Settings of a rule")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(RuleSettings.__struct_fields__)


def test_the_changelog_has_this_version() -> None:
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()
