"""`penstock usage` and `penstock prices`, as they are typed."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import shlex
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from books import DAY, attempt, ended

from penstock.cli import main
from penstock.cli.parser import parse
from penstock.cli.usage import moment
from penstock.core.errors import UserError
from penstock.core.settings import resolve
from penstock.core.types import EngineUse, Route
from penstock.meter.bill import Runs
from penstock.meter.book import read_prices
from penstock.meter.books import DatabaseLedger
from penstock.meter.database import open_database
from penstock.meter.keys import Keys

Run = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a server that has answered for three keys' worth of attempts."""
    monkeypatch.setenv("PENSTOCK_SERVER__DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def penstock(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, code: int = 0) -> str:
        assert main(arguments) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return run


def serve(folder: Path) -> str:
    """Write a ledger and return the id of the key called Alice."""
    database = open_database("sqlite", folder)
    key, _ = Keys(database, b"secret" * 8).create("Alice")
    attempts = [
        attempt(1, key_id=key.id, cost_usd=Decimal("0.001")),
        attempt(2, key_id=key.id, cost_usd=None, route=Route(upstream="vllm", model="qwen")),
        attempt(3, key_id="", started_at=DAY + 86400, cost_usd=Decimal("1E-9")),
    ]

    async def write() -> None:
        ledger = DatabaseLedger(database, folder / "spool")
        await ledger.start()
        ledger.record(ended(*attempts))
        await ledger.close()

    asyncio.run(write())
    database.close()
    return key.id


def test_the_table_has_a_line_for_each_and_a_total(folder: Path, penstock: Run) -> None:
    key = serve(folder)
    heading, anonymous, alice, total = penstock("usage", "--by", "key").splitlines()
    assert heading.split()[:4] == ["key", "name", "attempts", "requests"]
    assert alice.split()[:4] == [key, "Alice", "2", "2"] and alice.split()[-2:] == ["0.001000", "0.000000"]
    assert anonymous.split()[0] == "1"
    assert total.split()[:2] == ["total", "3"]


def test_csv_and_json_are_exact(folder: Path, penstock: Run) -> None:
    serve(folder)
    table = list(csv.DictReader(io.StringIO(penstock("usage", "--by", "day", "--csv"))))
    assert [(row["day"], row["attempts"], row["unknown_cost"], row["cost_usd"]) for row in table] == [
        ("2023-11-15", "2", "1", "0.001"),
        ("2023-11-16", "1", "0", "0.000000001"),
    ]
    lines = [json.loads(line) for line in penstock("usage", "--by", "route", "--json").splitlines()]
    assert [(row["route"], row["cost_usd"]) for row in lines] == [("openai/gpt-4o", "0.001000001"), ("vllm/qwen", "0")]


def test_rows_are_exported_as_they_are(folder: Path, penstock: Run) -> None:
    serve(folder)
    table = list(csv.DictReader(io.StringIO(penstock("usage", "--rows"))))
    assert [(row["id"], row["cost_usd"]) for row in table] == [
        ("request-1#0", "0.001"),
        ("request-2#0", ""),
        ("request-3#0", "0.000000001"),
    ]
    assert [json.loads(line)["cost_usd"] for line in penstock("usage", "--rows", "--json").splitlines()] == ["0.001", None, "0.000000001"]


def test_a_stretch_of_time_and_one_key(folder: Path, penstock: Run) -> None:
    serve(folder)
    [row] = [
        json.loads(line)
        for line in penstock(
            "usage", "--since", "2023-11-15", "--until", "2023-11-16", "--key", "Alice", "--by", "day", "--json"
        ).splitlines()
    ]
    assert (row["day"], row["attempts"]) == ("2023-11-15", 2)
    assert len(penstock("usage", "--rows", "--key", "Alice", "--json").splitlines()) == 2
    assert "nothing was used" in penstock("usage", "--since", "1h")
    assert "did you mean 'Alice'" in penstock("usage", "--key", "Alicia", code=2)
    assert "'soon' is no time" in penstock("usage", "--since", "soon", code=2)


def test_a_stretch_that_ends_before_it_begins_is_a_mistake(folder: Path) -> None:
    assert main(["usage", "--since", "1h", "--until", "2h"]) == 2


def test_a_model_without_a_price_is_told(folder: Path, penstock: Run) -> None:
    assert "no price of 'nonesuch' is known" in penstock("prices", "nonesuch")


def test_times() -> None:
    now = 1_000_000.0
    assert moment("7d", now) == now - 7 * 86400
    assert moment("90min", now) == now - 5400
    assert moment("2023-11-15", now) == DAY
    assert moment("2023-11-15T01:00+01:00", now) == DAY
    for wrong in ("", "7w", "15.11.2023"):
        with pytest.raises(UserError):
            moment(wrong, now)


def test_what_a_killed_server_left_is_told(folder: Path, penstock: Run, capsys: pytest.CaptureFixture[str]) -> None:
    serve(folder)
    database = open_database("sqlite", folder)
    ledger = DatabaseLedger(database, folder / "spool")  # never started: as if killed at once
    ledger.record(ended(attempt(7), attempt(8)))
    assert main(["usage"]) == 0
    assert "2 more attempts wait" in capsys.readouterr().err
    asyncio.run(ledger.close())
    assert main(["usage"]) == 0
    assert "wait" not in capsys.readouterr().err
    database.close()


def test_the_bill(folder: Path, penstock: Run) -> None:
    database = open_database("sqlite", folder)
    now = DAY
    runs = Runs(database, {"mini": Decimal("3.6")}, clock=lambda: now)
    runs.see()
    now += 1000
    runs.see()
    use = EngineUse(prefill_s=100, decode_s=100, kv_s=200)
    mini = attempt(1, use=use, route=Route(upstream="mini", model="mini"), cost_usd=Decimal("0.2"))

    async def write() -> None:
        ledger = DatabaseLedger(database, folder / "spool")
        await ledger.start()
        ledger.record(ended(mini))
        await ledger.close()

    asyncio.run(write())
    database.close()
    [row] = [json.loads(line) for line in penstock("usage", "--bill", "--json").splitlines()]
    assert [Decimal(row[name]) for name in ("bill_usd", "requests_usd", "idle_usd")] == [1, Decimal("0.2"), Decimal("0.8")]


def test_a_ledger_in_memory_has_nothing_to_show(penstock: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_LEDGER__DATABASE", "memory")
    assert "ends with the server" in penstock("usage", code=2)


def test_prices_are_listed_with_ones_own_first(folder: Path, penstock: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "prices.toml").write_text('prices = [{ upstream = "vllm", models = ["gpt-4o"], prompt = 0.10, completion = 3 }]')
    monkeypatch.setenv("PENSTOCK_PRICES__FILE", str(folder / "prices.toml"))
    _, own, shipped, _ = penstock("prices", "gpt-4o").splitlines()
    assert own.split() == ["vllm", "gpt-4o", "0.1", "3", "yours"]
    assert shipped.split()[:5] == ["openai", "gpt-4o", "2.5", "1.25", "10"]


PAGE = (Path(__file__).parents[3] / "docs" / "metering.md").read_text()


@pytest.mark.parametrize("line", [line for line in PAGE.splitlines() if line.startswith("penstock ")])
def test_the_commands_of_the_page_can_be_typed(line: str) -> None:
    command = shlex.split(line.partition("#")[0].partition(">")[0])
    assert parse(command[1:]).command in ("usage", "prices")


def test_the_files_of_the_page_can_be_read(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    prices = [block for block in blocks if block.startswith("# prices.toml")]
    for block in blocks:
        path = tmp_path / "file.toml"
        path.write_text(block)
        if block in prices:
            assert len(read_prices(path).prices) == 3
        else:
            resolve(file=path)
    assert len(prices) == 1 and len(blocks) >= 4
