"""`penstock keys`: the token is shown once and works; what is typed wrong is said so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli import MISTAKE, main
from penstock.core.errors import Unauthorized
from penstock.core.types import Principal
from penstock.meter.database import open_database
from penstock.meter.keys import KeyRing, Keys, read_secret


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_SERVER__DATA_DIR", str(tmp_path))
    return tmp_path


def find(data: Path, token: str) -> Principal:
    """As a server does that starts now."""
    database = open_database("sqlite", data)
    try:
        ring = KeyRing(Keys(database, read_secret("", data)), 3600)
        ring.refresh()
        return ring.find(token)
    finally:
        database.close()


def keys(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command prints on standard output."""
    assert main(["keys", *words]) == 0
    return capsys.readouterr().out.strip()


def test_a_key_is_made_with_all_that_was_asked(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    flags = ["--model", "mini", "--model", "other", "--route", "/v1", "--tenant", "t", "--priority", "-2", "--expires", "30d", "--warn"]
    bounds = [
        "--requests-per-minute",
        "60",
        "--tokens-per-minute",
        "1000",
        "--concurrent",
        "4",
        "--budget-day",
        "2.50",
        "--budget-month",
        "20",
    ]
    found = find(data, keys(capsys, "create", "ana", *flags, *bounds))
    assert (found.models, found.routes, found.tenant, found.priority, found.admin) == (("mini", "other"), ("/v1",), "t", -2, False)
    limits = found.limits
    assert (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests) == (60, 1000, 4)
    assert (str(limits.budget_day_usd), str(limits.budget_month_usd), limits.budget_action) == ("2.50", "20", "warn")


def test_the_first_key_says_what_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "create", "ana"])
    said = capsys.readouterr().err
    assert "the server answers nobody without a key" in said
    assert "--admin" in said
    main(["keys", "create", "bob", "--admin"])
    assert "nobody" not in capsys.readouterr().err


def test_the_list_shows_no_token(capsys: pytest.CaptureFixture[str]) -> None:
    token = keys(capsys, "create", "ana", "--admin", "--budget-day", "1")
    _, _, id, *_ = token.split("-")
    shown, plain = keys(capsys, "list"), keys(capsys, "list", "--json")
    assert id in shown
    assert "budget_day_usd=1" in shown
    assert token.split(id)[1][1:] not in shown + plain
    assert json.loads(plain)[0] | {"created_at": 0} == json.loads(plain)[0] | {"created_at": 0, "id": id, "admin": True, "state": "active"}


def test_rotate_and_revoke(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    token = keys(capsys, "create", "ana")
    id = token.split("-")[2]
    rotated = keys(capsys, "rotate", id, "--grace", "1h")
    assert find(data, token) == find(data, rotated)
    keys(capsys, "revoke", id)
    for over in (token, rotated):
        with pytest.raises(Unauthorized, match="revoked"):
            find(data, over)
    assert "revoked" in keys(capsys, "list")


@pytest.mark.parametrize(("words", "said"), [
    (["create", "ana", "--expires", "soon"], "--expires is a time such as"),
    (["create", "ana", "--expires", "0s"], "cannot expire in the past"),
    (["create", "ana", "--budget-day", "much"], "--budget-day is an amount of dollars"),
    (["create", "ana", "--budget-day", "-1"], "budget_day_usd is from 0"),
    (["create", "ana", "--concurrent", "0"], "concurrent_requests is at least 1"),
    (["create", "ana", "--route", "v1"], "a route is a path"),
    (["create", "ana", "--model", ""], "a model's name is empty"),
    (["create", "ana", "--tokens-per-minute", "9" * 20], "tokens_per_minute is at most"),
    (["create", "ana", "--priority", "9" * 20], "priority is from"),
    (["create", "ana", "--expires", "99999999d"], "36500d at most"),
    (["create", "ana", "--warn"], "--budget-day"),
    (["create", "ana", "--modle", "m"], "did you mean '--model'?"),
    (["create", ""], "a key's name has 1 to 128"),
    (["rotate", "abc", "--grace", "x"], "--grace is a time"),
    (["revoke", "abc"], "there is no key 'abc'"),
    (["remove", "abc"], "invalid choice"),
    ([], "ACTION"),
])  # fmt: skip
def test_a_mistake_is_named(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["keys", *words]) == MISTAKE
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_keys_in_memory_are_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_LEDGER__DATABASE", "memory")
    assert main(["keys", "create", "ana"]) == MISTAKE
    assert "gone at once" in capsys.readouterr().err
