"""The same SQL, the same answers, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from books import Postgres, postgres_server

from penstock.core.errors import ConfigError, DatabaseDown
from penstock.meter.database import Database, open_database

THINGS = "CREATE TABLE IF NOT EXISTS things (id TEXT PRIMARY KEY, number BIGINT, seconds DOUBLE PRECISION, money {money})"


def test_values_come_back_as_they_were(database: Database) -> None:
    database.create(THINGS)
    database.execute("INSERT INTO things VALUES (?, ?, ?, ?)", ("100 % of ÿ", 2**62, 0.1, Decimal("1E-18")))
    [(name, number, seconds, money)] = database.query("SELECT * FROM things WHERE id LIKE '100 %'")
    assert (name, number, seconds, Decimal(str(money))) == ("100 % of ÿ", 2**62, 0.1, Decimal("1E-18"))


def test_money_adds_up_exactly(database: Database) -> None:
    database.create(THINGS)
    assert database.query("SELECT money_sum(money) FROM things") == [(None,)]
    database.executemany(
        "INSERT INTO things VALUES (?, ?, ?, ?)", [(str(i), i, None, Decimal("0.1")) for i in range(30)] + [("none",) + (None,) * 3]
    )
    [(total,)] = database.query("SELECT money_sum(money) FROM things")
    assert Decimal(str(total)) == Decimal("3.0")


def test_a_transaction_is_all_or_nothing_and_may_be_nested(database: Database) -> None:
    database.create(THINGS)

    def insert_both() -> None:
        with database.transaction():
            database.execute("INSERT INTO things (id) VALUES (?)", ("a",))
            database.executemany("INSERT INTO things (id) VALUES (?)", [("b",), ("c",)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        insert_both()
    assert database.query("SELECT id FROM things") == []


def test_threads_take_turns(database: Database) -> None:
    database.create(THINGS)
    database.execute("INSERT INTO things (id, number) VALUES ('n', 0)")

    def count() -> None:
        for _ in range(25):
            with database.transaction():
                [(number,)] = database.query("SELECT number FROM things")
                database.execute("UPDATE things SET number = ?", (number + 1,))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.query("SELECT number FROM things") == [(100,)]


def test_two_processes_that_read_and_then_write_wait_for_each_other(tmp_path: Path) -> None:
    databases = [open_database("sqlite", tmp_path) for _ in range(2)]
    databases[0].create(THINGS)
    databases[0].execute("INSERT INTO things (id, number) VALUES ('n', 0)")

    def count(database: Database) -> None:
        for _ in range(25):
            with database.transaction():
                [(number,)] = database.query("SELECT number FROM things")
                database.execute("UPDATE things SET number = ?", (number + 1,))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(count, databases))
    assert databases[0].query("SELECT number FROM things") == [(50,)]
    for database in databases:
        database.close()


def test_two_that_create_a_table_at_once_both_succeed(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = "sqlite" if database.dialect == "sqlite" else request.getfixturevalue("postgres").url
    others = [open_database(url, tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda other: other.create(THINGS), others))
    for other in others:
        other.close()
    assert database.query("SELECT * FROM things") == []


def test_a_value_that_no_database_keeps_is_told_from_one_that_is_down(database: Database) -> None:
    database.create(THINGS)
    database.execute("INSERT INTO things (id) VALUES ('a')")
    with pytest.raises(Exception) as twice:
        database.execute("INSERT INTO things (id) VALUES ('a')")
    assert database.refuses(twice.value)
    assert not database.refuses(DatabaseDown("down"))


def test_a_database_that_comes_back_is_used_again() -> None:
    with postgres_server() as server:
        _stop_and_start(server)


def _stop_and_start(server: Postgres) -> None:
    database = open_database(server.url, Path())
    database.create(THINGS)
    server.stop()
    for _ in range(2):
        with pytest.raises(DatabaseDown):
            database.execute("INSERT INTO things (id) VALUES ('lost')")
    server.start()
    database.execute("INSERT INTO things (id) VALUES ('kept')")
    assert database.query("SELECT id FROM things") == [("kept",)]
    database.close()


def test_a_file_that_is_no_database_is_down_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are my notes, and no database." * 100)
    database = open_database(f"sqlite:///{tmp_path}/notes.txt", tmp_path)
    with pytest.raises(DatabaseDown, match="not a database"):
        database.create(THINGS)
    assert (tmp_path / "notes.txt").read_text().startswith("These are my notes")


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    database = open_database("sqlite", tmp_path / "new")
    database.create(THINGS)
    database.close()
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    assert (tmp_path / "new" / "penstock.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("url", ["mysql://user:secret@host/name", "penstock.db", "sqlite://", ""])
def test_an_address_that_is_none_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ledger\.database") as refused:
        open_database(url, Path())
    assert "secret" not in str(refused.value)
