"""What a user types and sees, in the process that they would start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("serve", "chat", "generate", "models", "config", "version")


def penstock(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock", *arguments]
    return subprocess.run(command, input=stdin, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=100, check=False)


def test_help_lists_every_command() -> None:
    shown = penstock("--help")
    assert shown.returncode == 0
    assert all(f"\n    {name} " in shown.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sevre",), "did you mean 'serve'?"),
        (("serve", "--prot", "80"), "did you mean '--port'?"),
        (("serve", "--port=http"), "server.port must be an integer from 0 to 65535, got 'http' (from --port)"),
        (("serve", "penstock-mni"), "did you mean 'penstock-mini'?"),
        (("serve", "--config", "absent.toml"), "there is no config file absent.toml"),
        (("generate",), "the following arguments are required: PROMPT"),
        (("generate", "hello", "--max-tokens", "many"), "--max-tokens"),
        (("version", "extra"), "unknown argument 'extra'"),
    ],
)
def test_a_users_mistake_is_two_plain_lines_and_exit_code_2(arguments: tuple[str, ...], says: str) -> None:
    failed = penstock(*arguments)
    assert failed.returncode == 2
    assert says in failed.stderr
    assert failed.stderr.startswith("penstock: ")
    assert len(failed.stderr.splitlines()) <= 2
    assert failed.stdout == ""


def test_config_shows_each_value_and_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[server]\nhost = '::1'\n[engine]\nblock_size = 32\n")
    env = {"PENSTOCK_SERVER__DRAIN_S": "5"}
    shown = penstock("config", "a/b", "--config", str(file), "--port", "9000", "--kv-bytes", "1GiB", env=env).stdout
    rows = {tuple(part.strip() for part in line.split("#")) for line in shown.splitlines() if "#" in line}
    assert {
        ('host = "::1"', str(file)),
        ("port = 9000", "--port"),
        ("drain_s = 5.0", "PENSTOCK_SERVER__DRAIN_S"),
        ("max_body_bytes = 16777216", "default"),
        ('model = "a/b"', "command line"),
        ("block_size = 32", str(file)),
        ("kv_bytes = 1073741824", "--kv-bytes"),
    } <= rows


def test_config_shows_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    upstream = 'name = "u"\nurl = "http://me:hidden-1@u/v1"\napi_key = "hidden-2"\n'
    upstream += 'headers = { Authorization = "hidden-3", x-a = "shown" }\n'
    file.write_text(f'[ledger]\ndatabase = "postgresql://me:hidden-4@db/p"\n[keys]\nsecret = "hidden-5"\n[[upstreams]]\n{upstream}')
    shown = penstock("config", "--config", str(file)).stdout
    assert "hidden" not in shown
    assert all(part in shown for part in ("postgresql://me:***@db/p", "http://me:***@u/v1", '"x-a" = "shown"'))


def test_what_config_shows_is_a_config_file(tmp_path: Path) -> None:
    file = tmp_path / "shown.toml"
    file.write_text(penstock("config", "a/b", "--port", "9000", "--dtype", "float32").stdout)
    again = penstock("config", "--config", str(file))
    assert again.returncode == 0
    strip = [line.split("#")[0].strip() for line in again.stdout.splitlines()]
    assert strip == [line.split("#")[0].strip() for line in file.read_text().splitlines()]


def test_models_lists_the_built_in_one() -> None:
    assert "penstock-mini" in penstock("models").stdout


def test_version_names_what_a_bug_report_needs() -> None:
    shown = penstock("version").stdout
    assert all(name in shown for name in ("penstock 0.1.0", "python", "torch"))
