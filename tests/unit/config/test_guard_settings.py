"""`[[guard.rules]]`: one table for each rule, and what a mistake in one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli import main
from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError
from penstock.core.settings import resolve

RULES = """
[guard]
mode = "shadow"

[[guard.rules]]
kind = "regex"
patterns = ['a\\.b', "c"]
keys = { bob = "allow" }
budget_s = 1

[[guard.rules]]
kind = "json"
on = ["output"]
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "penstock.toml"
    file.write_text(text)
    return file


def test_each_table_is_a_rule(tmp_path: Path) -> None:
    settings = resolve(file=written(tmp_path, RULES))
    assert settings.guard.mode == "shadow"
    assert settings.guard.rules == [
        RuleSettings(kind="regex", patterns=[r"a\.b", "c"], keys={"bob": "allow"}, budget_s=1.0),
        RuleSettings(kind="json", on=["output"]),
    ]


def test_rules_may_come_from_the_environment() -> None:
    settings = resolve(environment={"PENSTOCK_GUARD__RULES": '[{"kind": "length", "max_chars": 9}]'})
    assert settings.guard.rules == [RuleSettings(kind="length", max_chars=9)]


def test_what_penstock_config_prints_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, RULES)
    assert main(["config", "--config", str(file)]) == 0
    printed = written(tmp_path, capsys.readouterr().out)
    assert resolve(file=printed).guard == resolve(environment={"PENSTOCK_GUARD__MODE": "shadow"}, file=printed).guard
    assert resolve(file=printed).guard.rules == resolve(file=written(tmp_path, RULES)).guard.rules


@pytest.mark.parametrize(
    ("table", "says", "hint"),
    [
        ('kidn = "regex"', "unknown setting 'guard.rules.kidn' in table 2 of", "did you mean 'guard.rules.kind'?"),
        ("patterns = []", "table 2 of guard.rules has no kind", "write kind = "),
        ("kind = 3", "guard.rules.kind must be a text, got 3", ""),
        ('kind = "json"\naction = "block"', 'guard.rules.action must be "allow" or "redact" or "refuse", got \'block\'', ""),
        ('kind = "length"\nmax_chars = 0', "guard.rules.max_chars must be an integer of at least 1 or nothing, got 0", ""),
        ('kind = "json"\non = ["inputs"]', 'guard.rules.on must be a list of "input" or "tools" or "output", got [\'inputs\']', ""),
        ('kind = "json"\nbudget_s = "soon"', "guard.rules.budget_s must be a number above 0, got 'soon'", ""),
    ],
)
def test_a_mistake_names_the_table_and_the_setting(tmp_path: Path, table: str, says: str, hint: str) -> None:
    file = written(tmp_path, f'[[guard.rules]]\nkind = "json"\n[[guard.rules]]\n{table}\n')
    with pytest.raises(ConfigError) as caught:
        resolve(file=file)
    assert says in caught.value.message
    assert str(file) in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("rules", ['rules = "pii"', 'rules = ["pii"]', "[guard.rules]\nkind = 'pii'"])
def test_rules_are_tables(tmp_path: Path, rules: str) -> None:
    with pytest.raises(ConfigError, match="guard.rules must be a list of tables"):
        resolve(file=written(tmp_path, f"[guard]\n{rules}\n"))
