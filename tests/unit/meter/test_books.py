"""The ledger in a database: every attempt once, whatever happens to the process, the disk or the database."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from books import DAY, attempt, ended, postgres_server, until
from msgspec.structs import replace

from penstock.core.types import Attempt, EngineUse, Route
from penstock.meter.attempts import COLUMNS, create, row
from penstock.meter.bill import Runs, bills
from penstock.meter.books import DatabaseLedger
from penstock.meter.database import Database, open_database
from penstock.meter.prices import MachinePrice

DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from books import DAY, attempt, ended
from penstock.meter.books import DatabaseLedger
from penstock.meter.database import open_database

async def main(folder):
    ledger = DatabaseLedger(open_database("sqlite", folder), folder / "spool", sync_s=3600)
    await ledger.start()
    for number in range(100):
        ledger.record(ended(attempt(number)))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1])))
"""


def ids(database: Database) -> list[str]:
    return [id for (id,) in database.query("SELECT id FROM attempts ORDER BY id")]


def spooled(folder: Path) -> list[Path]:
    return sorted((folder / "spool").glob("*.jsonl"))


def dead_process(folder: Path) -> None:
    """Leave behind what a process that recorded a hundred attempts and was killed leaves behind."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run([sys.executable, "-c", DIES, str(folder)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL


async def test_an_attempt_is_kept_as_it_was(database: Database, tmp_path: Path) -> None:
    known = attempt(
        1, use=EngineUse(prefill_s=0.1, decode_s=0.2, kv_s=0.3, kv_block_s=4.0), saved_usd=Decimal("1E-12"), failure="overloaded"
    )
    unknown = attempt(2, cost_usd=None, timings=attempt().timings, tenant="alice\x1fsalt \N{SNOWMAN}")
    ledger = DatabaseLedger(database, tmp_path / "spool")
    await ledger.start()
    ledger.record(ended(known, unknown))
    await ledger.close()
    found = database.query(f"SELECT {', '.join(COLUMNS)} FROM attempts ORDER BY id")
    money = list(COLUMNS).index("cost_usd")
    for wanted, got in zip((known, unknown), found, strict=True):
        assert got[:money] == row(wanted)[:money]
        assert [None if value is None else Decimal(str(value)) for value in got[money : money + 2]] == [wanted.cost_usd, wanted.saved_usd]
    assert spooled(tmp_path) == []


async def test_one_that_is_recorded_twice_is_kept_once_and_as_it_was_first(database: Database, tmp_path: Path) -> None:
    ledger = DatabaseLedger(database, tmp_path / "spool")
    await ledger.start()
    ledger.record(ended(attempt(1), attempt(2)))
    ledger.record(ended(attempt(1, cost_usd=Decimal(5))))
    await ledger.close()
    [(count, total)] = database.query("SELECT count(*), money_sum(cost_usd) FROM attempts")
    assert (count, Decimal(str(total))) == (2, Decimal("0.0000002"))


async def test_it_is_written_while_the_server_runs(database: Database, tmp_path: Path) -> None:
    ledger = DatabaseLedger(database, tmp_path / "spool", sync_s=0.01)
    await ledger.start()
    for number in range(1000):
        ledger.record(ended(attempt(number)))
    until(lambda: len(ids(database)) == 1000, "all written")
    await ledger.close()


async def test_what_a_killed_process_recorded_is_written_by_the_next(database: Database, tmp_path: Path) -> None:
    dead_process(tmp_path)
    told: list[Attempt] = []

    async def tell(attempts: Sequence[Attempt]) -> None:
        told.extend(attempts)

    ledger = DatabaseLedger(database, tmp_path / "spool")
    await ledger.start(tell)
    assert len(ids(database)) == 100  # before the first request is served, so that budgets start from the right sum
    assert sorted(told, key=lambda found: found.started_at) == [attempt(number) for number in range(100)]
    await ledger.close()
    assert spooled(tmp_path) == []


async def test_a_living_process_keeps_its_spool(tmp_path: Path) -> None:
    databases = [open_database("sqlite", tmp_path) for _ in range(2)]
    first = DatabaseLedger(databases[0], tmp_path / "spool", sync_s=3600)
    await first.start()
    first.record(ended(attempt(1)))
    second = DatabaseLedger(databases[1], tmp_path / "spool")
    await second.start()
    assert (ids(databases[1]), len(spooled(tmp_path))) == ([], 2)
    await second.close()
    first.record(ended(attempt(2)))
    await first.close()
    assert ids(databases[0]) == [attempt(1).id, attempt(2).id]
    for opened in databases:
        opened.close()


async def test_a_database_that_is_down_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with postgres_server() as server:
        database = open_database(server.url, tmp_path)
        create(database)
        server.stop()
        ledger = DatabaseLedger(database, tmp_path / "spool", sync_s=0.01)
        await ledger.start()
        for number in range(300):
            ledger.record(ended(attempt(number)))
        until(lambda: "attempts wait in the spool" in caplog.text, "said that it is down")
        server.start()
        until(lambda: "the database is back" in caplog.text, "said that it is back")
        assert len(ids(database)) == 300
        await ledger.close()
        assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
        database.close()


async def test_a_server_that_ends_while_the_database_is_down_leaves_its_spool_to_the_next(tmp_path: Path) -> None:
    nowhere = open_database(f"postgresql:///none?host={tmp_path}", tmp_path)
    ledger = DatabaseLedger(nowhere, tmp_path / "spool", sync_s=0.01)
    await ledger.start()
    ledger.record(ended(attempt(1)))
    await ledger.close()
    database = open_database("sqlite", tmp_path)
    after = DatabaseLedger(database, tmp_path / "spool")
    await after.start()
    assert ids(database) == [attempt(1).id]
    await after.close()
    database.close()


async def test_while_the_database_is_down_few_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.meter.books.FILE_BYTES", 2000)
    nowhere = open_database(f"postgresql:///none?host={tmp_path}", tmp_path)
    ledger = DatabaseLedger(nowhere, tmp_path / "spool", sync_s=0.002)
    await ledger.start()
    for number in range(100):
        ledger.record(ended(attempt(number)))
        await asyncio.sleep(0.003)
    assert len(spooled(tmp_path)) <= 2
    await ledger.close()


async def test_a_full_disk_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = open_database("memory", tmp_path)
    ledger = DatabaseLedger(database, tmp_path / "spool", sync_s=3600)
    await ledger.start()
    with files_of_at_most(2000):  # in the middle of the third line or so
        for number in range(50):
            ledger.record(ended(attempt(number)))
    assert caplog.text.count("kept in memory") == 1
    ledger.record(ended(attempt(50)))
    await ledger.close()
    assert ids(database) == sorted(attempt(number).id for number in range(51))
    database.close()


async def test_what_the_spool_does_not_take_goes_straight_to_the_database(tmp_path: Path) -> None:
    database = open_database("memory", tmp_path)
    ledger = DatabaseLedger(database, tmp_path / "spool", sync_s=0.005)
    await ledger.start()
    with files_of_at_most(2000):
        for number in range(50):
            ledger.record(ended(attempt(number)))
        until(lambda: len(ids(database)) == 50, "all written although the disk is full")
    await ledger.close()
    assert len(ids(database)) == 50
    database.close()


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """As on a full disk, a write beyond is cut short, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_a_line_torn_by_a_kill_harms_no_other(database: Database, tmp_path: Path) -> None:
    dead_process(tmp_path)
    [path] = spooled(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:50]) + b'{"no": "attempt"}\n' + b"".join(lines[50:99]) + lines[99][:200])
    ledger = DatabaseLedger(database, tmp_path / "spool")
    await ledger.start()
    await ledger.close()
    assert ids(database) == sorted(attempt(number).id for number in range(99))
    assert (tmp_path / "spool" / "unreadable.txt").read_bytes() == b'{"no": "attempt"}\n' + lines[99][:200] + b"\n"


async def test_one_that_the_database_refuses_does_not_hold_up_the_others(database: Database, tmp_path: Path) -> None:
    """PostgreSQL keeps no NUL in a text; and no database a number beyond 64 bits."""
    ledger = DatabaseLedger(database, tmp_path / "spool")
    await ledger.start()
    ledger.record(ended(attempt(1), attempt(2, tenant="\0"), attempt(3)))
    await ledger.close()
    kept = [1, 2, 3] if database.dialect == "sqlite" else [1, 3]
    assert ids(database) == [attempt(number).id for number in kept]
    aside = tmp_path / "spool" / "unreadable.txt"
    assert aside.exists() == (database.dialect == "postgresql")


async def test_a_spool_of_many_files_is_written_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.meter.books.FILE_BYTES", 5000)
    monkeypatch.setattr("penstock.meter.spool.READ_BYTES", 512)  # less than one line
    database = open_database("sqlite", tmp_path)
    ledger = DatabaseLedger(database, tmp_path / "spool", sync_s=0.005)
    await ledger.start()
    for number in range(500):
        ledger.record(ended(attempt(number, route=Route(upstream="u", model="m" * number))))
        if number % 100 == 0:
            until(lambda: len(ids(database)) == number + 1, "written so far")  # noqa: B023
    await ledger.close()
    assert len(ids(database)) == 500
    assert spooled(tmp_path) == []
    database.close()


async def test_who_counts_replayed_attempts_is_told_until_it_has(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead_process(tmp_path)
    told: list[int] = []

    async def fail_at_first(attempts: Sequence[Attempt]) -> None:
        told.append(len(attempts))
        if len(told) < 4:
            raise ConnectionError("the counters are down")

    ledger = DatabaseLedger(database, tmp_path / "spool", sync_s=0.01)
    await ledger.start(fail_at_first)
    ledger.record(ended(replace(attempt(1), id="mine")))
    async with asyncio.timeout(20):
        while len(told) < 4:
            await asyncio.sleep(0.01)
    await ledger.close()
    assert told == [100] * 4
    assert len(ids(database)) == 101
    assert caplog.text.count("not counted yet") == 1
    assert spooled(tmp_path) == []


async def test_what_is_spent_includes_the_last_moment(database: Database, tmp_path: Path) -> None:
    ledger = DatabaseLedger(database, tmp_path / "spool", sync_s=3600)
    await ledger.start()
    ledger.record(ended(attempt(1, cost_usd=Decimal("0.25"))))
    assert await asyncio.to_thread(ledger.spent, DAY) == {"alice": Decimal("0.25")}
    await ledger.close()


async def test_a_young_engine_s_bill_covers_what_it_has_billed(database: Database, tmp_path: Path) -> None:
    """Half a second of work in the first half second: nobody is told of negative idle time."""
    price = MachinePrice(Decimal(3600), 1, 0.3)
    ledger = DatabaseLedger(database, tmp_path, sync_s=0.05, runs=Runs(database, {"mini": price.engine_usd_per_hour}))
    await ledger.start()
    try:
        await asyncio.sleep(0.5)
        use = EngineUse(prefill_s=0.2, decode_s=0.2, kv_s=0.4)
        route = Route(upstream="mini", model="mini")
        ledger.record(ended(attempt(route=route, use=use, cost_usd=price.cost(use), started_at=time.time() - 0.4)))
        await asyncio.to_thread(until, lambda: bills(database, 0, time.time() + 60)[0].attempts, "the row is written")
        (bill,) = bills(database, 0, time.time() + 60)
    finally:
        await ledger.close()
    assert bill.requests_usd > 0
    assert bill.idle_usd >= 0
