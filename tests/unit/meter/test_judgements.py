"""What guards, cache and router decided, in the ledger: each once, also of a request that never reached a model."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from books import DAY, attempt
from msgspec.structs import replace

from penstock.cli import main
from penstock.core.types import Finish, Judgement, Principal, Request
from penstock.meter.books import DatabaseLedger
from penstock.meter.database import Database, open_database
from penstock.meter.judgements import counted, rows
from penstock.meter.usage import Filter
from penstock.trace import Ended

HIT = Judgement(room="cache", rule="semantic", action="hit", why="means the same \N{SNOWMAN}", score=0.97, took_s=0.001)
REFUSED = Judgement(room="guard", rule="injection", action="refuse", why="asks to ignore what was said")
WOULD = replace(REFUSED, shadow=True)


def ended(id: str, *judgements: Judgement, key: str = "alice", after_s: float = 0.0) -> Ended:
    request = Request(id=id, model="auto", principal=Principal(key_id=key), tenant="t")
    return Ended(request=request, decision=None, finish=Finish(reason="stop"), arrived_at=DAY + after_s, judgements=judgements)


async def write(database: Database, folder: Path, *requests: Ended) -> None:
    ledger = DatabaseLedger(database, folder / "spool")
    await ledger.start()
    for request in requests:
        ledger.record(request)
    await ledger.close()


async def test_a_judgement_is_kept_as_it_was_and_once(database: Database, tmp_path: Path) -> None:
    await write(database, tmp_path, ended("r", HIT, REFUSED))
    await write(database, tmp_path, ended("r", HIT, REFUSED))
    first, second = rows(database, Filter())
    assert first == {
        "id": "r!0", "request_id": "r", "started_at": DAY, "key_id": "alice", "tenant": "t", "asked": "auto", "room": "cache",
        "rule": "semantic", "action": "hit", "why": "means the same \N{SNOWMAN}", "score": 0.97, "shadow": 0, "took_s": 0.001,
    }  # fmt: skip
    assert (second["id"], second["score"]) == ("r!1", None)


async def test_attempts_and_judgements_of_one_request_are_both_written(database: Database, tmp_path: Path) -> None:
    await write(database, tmp_path, replace(ended("r", HIT), attempts=(attempt(),)))
    assert database.query("SELECT count(*) FROM attempts")[0][0] == 1
    assert [row["id"] for row in rows(database, Filter())] == ["r!0"]


async def test_decisions_are_counted_apart_where_nothing_was_changed(database: Database, tmp_path: Path) -> None:
    await write(database, tmp_path, ended("a", REFUSED), ended("b", WOULD), ended("c", WOULD, WOULD), ended("d", WOULD, after_s=86400.0))
    told = counted(database, Filter(until=DAY + 86400))
    assert [(row.rule, row.action, row.shadow, row.requests, row.judgements) for row in told] == [
        ("injection", "refuse", False, 1, 1),
        ("injection", "refuse", True, 2, 3),
    ]
    assert not counted(database, Filter(key_id="bob"))


async def test_the_command_shows_sums_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PENSTOCK_SERVER__DATA_DIR", str(tmp_path))
    database = open_database("sqlite", tmp_path)
    await write(database, tmp_path, ended("a", HIT, WOULD), ended("b", HIT))
    database.close()
    assert main(["usage", "--judgements"]) == 0
    heading, hit, would = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["room", "rule", "action", "shadow"]
    assert hit.split() == ["cache", "semantic", "hit", "2", "2", "0.970"]
    assert would.split() == ["guard", "injection", "refuse", "yes", "1", "1"]
    assert main(["usage", "--judgements", "--rows"]) == 0
    assert [row["request_id"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == ["a", "a", "b"]
    assert main(["usage", "--judgements", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["mean_score"] == pytest.approx(0.97)
    assert main(["usage", "--judgements", "--bill"]) == 2
    assert main(["usage", "--judgements", "--by", "day"]) == 2
    assert "ask for one of them" in capsys.readouterr().err
