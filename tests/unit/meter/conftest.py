"""Databases of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from books import Postgres, postgres_server

from penstock.meter.database import Database, open_database

TABLES = ("attempts", "judgements", "keys", "runs", "counters", "things")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty one."""
    url = "sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres").url
    opened = open_database(url, tmp_path)
    for table in TABLES:
        opened.execute(f"DROP TABLE IF EXISTS {table}")
    yield opened
    opened.close()
