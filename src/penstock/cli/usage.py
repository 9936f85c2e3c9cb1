"""`penstock usage`: what the ledger says, as a table for a person, CSV or JSON for a program."""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from penstock.cli.settings import read
from penstock.core.errors import UserError, closest
from penstock.core.settings import Settings
from penstock.meter import attempts, judgements, keys
from penstock.meter.bill import bills
from penstock.meter.database import Database, open_database
from penstock.meter.spool import waiting
from penstock.meter.usage import By, Filter, rows, usage

AGO = re.compile(r"(\d+)(min|h|d)")
SECONDS = {"min": 60, "h": 3600, "d": 86400}
Row = Mapping[str, object]


def run(arguments: argparse.Namespace) -> int:
    settings = read(arguments, ())
    if settings.ledger.database == "memory":
        raise UserError("the ledger is kept in memory and ends with the server", hint="set ledger.database")
    data_dir = Path(settings.server.data_dir).expanduser()
    database = open_database(settings.ledger.database, data_dir)
    try:
        attempts.create(database)
        judgements.create(database)
        database.create(keys.SCHEMA)
        _print(_asked(database, arguments, settings), arguments)
        _say_waiting(database, data_dir / "spool")
    finally:
        database.close()
    return 0


def _asked(database: Database, arguments: argparse.Namespace, settings: Settings) -> Iterable[Row]:
    since = None if arguments.since is None else moment(arguments.since, time.time())
    until = None if arguments.until is None else moment(arguments.until, time.time())
    if since is not None and until is not None and until <= since:
        raise UserError(f"--until {arguments.until} is not after --since {arguments.since}", hint="--since is where it begins")
    names: dict[str, str] = dict(database.query("SELECT id, name FROM keys"))
    if arguments.bill and arguments.judgements:
        raise UserError("--bill adds up engines and --judgements decisions", hint="ask for one of them")
    if arguments.judgements and arguments.by:
        raise UserError("--judgements are added up by what was decided, not by " + arguments.by, hint="leave out --by")
    if arguments.bill:
        return [msgspec.structs.asdict(bill) for bill in bills(database, since or 0.0, until or time.time())]
    only = Filter(since=since, until=until, key_id=None if arguments.key is None else _key(arguments.key, names))
    if arguments.judgements:
        return judgements.rows(database, only) if arguments.rows else map(msgspec.structs.asdict, judgements.counted(database, only))
    if arguments.rows:
        return rows(database, only)
    by: By = arguments.by or "model"
    found = [msgspec.structs.asdict(row) for row in usage(database, by, only)]
    if by == "key":
        return [{"key": (id := row.pop("name")), "name": names.get(id, ""), **row} for row in found]
    return [{by: row.pop("name"), **row} for row in found]


def _key(given: str, names: Mapping[str, str]) -> str:
    """The id of a key that is given by its id or name."""
    if given in names:
        return given
    ids = [id for id, name in names.items() if name == given]
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise UserError(f"{len(ids)} keys are called {given!r}", hint=f"give one of their ids: {', '.join(ids)}")
    near = closest(given, [*names, *names.values()])
    raise UserError(f"there is no key {given!r}", hint=f"did you mean {near!r}?" if near else "see penstock keys list")


def moment(text: str, now: float) -> float:
    """Unix seconds of "2026-11-21", "2026-11-21T13:30" (UTC unless it says otherwise), or "7d", "24h", "30min" ago. Raises UserError."""
    if ago := AGO.fullmatch(text):
        return now - int(ago[1]) * SECONDS[ago[2]]
    try:
        given = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{text!r} is no time", hint="write 2026-11-21, 2026-11-21T13:30 (UTC), or 7d, 24h, 30min ago") from None
    return (given if given.tzinfo else given.replace(tzinfo=dt.UTC)).timestamp()


def _print(found: Iterable[Row], arguments: argparse.Namespace) -> None:
    if arguments.json:
        for row in found:
            print(json.dumps(row, default=_plain))
    elif arguments.csv or arguments.rows:
        _print_csv(found)
    else:
        _print_table(list(found), adds_up=not arguments.judgements)


def _print_csv(found: Iterable[Row]) -> None:
    writer: csv.DictWriter[str] | None = None
    for row in found:
        if writer is None:
            writer = csv.DictWriter(sys.stdout, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: _plain(value) if isinstance(value, Decimal) else value for name, value in row.items()})


def _print_table(found: Sequence[Row], *, adds_up: bool) -> None:
    if not found:
        print("nothing was used")
        return
    table = [[_heading(name) for name in found[0]], *([_shown(value) for value in row.values()] for row in found)]
    if adds_up and len(found) > 1:
        table.append(_total(found))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    is_text = [isinstance(value, str) for value in found[0].values()]
    for line in table:
        cells = (cell.ljust(width) if text else cell.rjust(width) for cell, width, text in zip(line, widths, is_text, strict=True))
        print("  ".join(cells).rstrip())


def _heading(name: str) -> str:
    return name.removesuffix("_tokens").replace("_usd", " $").replace("_", " ")


def _total(found: Sequence[Row]) -> list[str]:
    columns = [[row[name] for row in found] for name in found[0]]
    numbers = [[value for value in column if isinstance(value, int | float | Decimal)] for column in columns]
    return ["total", *(_shown(sum(values)) if values else "" for values in numbers[1:])]


def _shown(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:,.6f}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, bool) or value is None:
        return "yes" if value else ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: object) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _say_waiting(database: Database, spool: Path) -> None:
    """On stderr, so that what a program reads stays clean."""
    count = attempts.missing(database, list(waiting(spool)))
    if count:
        print(f"penstock: {count} more attempts wait in {spool}: a running server writes them within seconds", file=sys.stderr)
