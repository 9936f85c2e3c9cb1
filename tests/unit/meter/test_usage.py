"""What the ledger answers: sums that add up, and the bill of one's own engines."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from books import DAY, attempt

from penstock.core.types import Attempt, EngineUse, Route, Usage
from penstock.meter.attempts import create, insert, missing, spent
from penstock.meter.bill import Runs, bills
from penstock.meter.database import Database
from penstock.meter.prices import MachinePrice
from penstock.meter.usage import By, Filter, rows, usage

ALL = Filter()
ATTEMPTS = [
    attempt(0, key_id="alice", cost_usd=Decimal("0.1")),
    attempt(1, key_id="alice", cost_usd=Decimal("0.2"), route=Route(upstream="b", model="m"), reason="error"),
    attempt(2, key_id="alice", number=1, request_id="request-1", purpose="retry", cost_usd=None, route=Route(upstream="a", model="m")),
    attempt(3, key_id="bob", started_at=DAY + 86399.5, cost_usd=Decimal("1E-9"), usage=Usage(prompt_tokens=7, estimated=True)),
    attempt(4, key_id="bob", started_at=DAY + 86400.0, purpose="cache", cost_usd=Decimal(0), saved_usd=Decimal("0.3")),
]


@pytest.fixture(autouse=True)
def written(database: Database) -> None:
    create(database)
    insert(database, ATTEMPTS)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("key", ["alice", "bob"]),
        ("model", ["gpt-4o", "m"]),
        ("route", ["a/m", "b/m", "openai/gpt-4o"]),
        ("day", ["2023-11-15", "2023-11-16"]),
    ],
)
def test_whichever_way_it_is_split_it_adds_up(database: Database, by: By, names: list[str]) -> None:
    found = usage(database, by, ALL)
    assert [row.name for row in found] == names
    assert sum(row.attempts for row in found) == 5
    assert sum(row.requests for row in found) == 4
    assert sum(row.errors for row in found) == 1
    assert sum(row.prompt_tokens for row in found) == 407
    assert sum(row.reasoning_tokens for row in found) == 20
    assert sum(row.estimated for row in found) == 1
    assert sum(row.cost_usd for row in found) == Decimal("0.300000001")
    assert sum(row.saved_usd for row in found) == Decimal("0.3")


def test_an_unknown_cost_is_counted_and_never_added_as_zero(database: Database) -> None:
    [first, *_] = usage(database, "route", ALL)
    assert (first.name, first.attempts, first.unknown_cost, first.cost_usd) == ("a/m", 1, 1, 0)


def test_only_what_was_asked_for(database: Database) -> None:
    [row] = usage(database, "key", Filter(since=DAY + 1, until=DAY + 86400, key_id="bob"))
    assert (row.attempts, row.prompt_tokens, row.cost_usd) == (1, 7, Decimal("1E-9"))
    assert usage(database, "day", Filter(until=DAY)) == []


def test_rows_come_page_by_page_and_each_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    insert(database, [attempt(number, id=f"same-time-{number:02}", started_at=DAY) for number in range(20)])
    monkeypatch.setattr("penstock.meter.usage.PAGE", 3)
    found = [row["id"] for row in rows(database, ALL)]
    assert len(found) == 25 == len(set(found))
    assert [row["key_id"] for row in rows(database, Filter(key_id="bob"))] == ["bob", "bob"]


def test_what_each_key_spent_since_a_time_is_rounded_up(database: Database) -> None:
    insert(database, [attempt(5, key_id="carol", cost_usd=Decimal("1.0000000001"))])
    assert spent(database, DAY)["carol"] == Decimal("1.000000001")
    insert(database, [attempt(6, key_id="carol", cost_usd=Decimal("1.0000000001"))])
    assert spent(database, DAY).pop("carol") == Decimal("2.000000002")


def test_what_each_key_spent_since_a_time(database: Database) -> None:
    assert spent(database, DAY) == {"alice": Decimal("0.3"), "bob": Decimal("0.000000001")}
    assert spent(database, DAY + 86400) == {"bob": 0}


def test_what_is_not_written_yet_is_told(database: Database) -> None:
    assert missing(database, [*ATTEMPTS, attempt(9), attempt(9)]) == 1


def engine_attempts(price: MachinePrice, count: int) -> list[Attempt]:
    """Of an engine that was busy for `count` times 0.7 seconds."""
    uses = [EngineUse(prefill_s=number / 7, decode_s=0.7 - number / 7, kv_s=0.7) for number in range(count)]
    route = Route(upstream="mini", model="mini")
    return [attempt(100 + number, route=route, use=use, cost_usd=price.cost(use)) for number, use in enumerate(uses)]


def test_requests_and_idle_time_are_the_bill_to_the_last_digit(database: Database) -> None:
    """Two engines share a machine of 10 dollars per hour; one was busy for 7 of the 1000 seconds that it ran, in two runs."""
    price = MachinePrice(Decimal(10), 2, 0.3)
    insert(database, engine_attempts(price, 10))
    now = DAY
    for seconds in (300, 700):
        runs = Runs(database, dict.fromkeys(("mini", "maxi"), price.engine_usd_per_hour), clock=lambda: now)  # noqa: B023
        runs.see()
        now += seconds
        runs.see(due=True)
        now += 50  # off, and free
    maxi, mini = bills(database, DAY, now)
    assert (mini.upstream, mini.attempts, mini.bill_usd) == ("mini", 10, (Decimal(5) * 1000 / 3600).quantize(Decimal("1e-18")))
    assert mini.requests_usd + mini.idle_usd == mini.bill_usd
    assert abs(mini.idle_usd - Decimal(5) * 993 / 3600) < Decimal("1e-9")
    assert mini.busy_hours == pytest.approx(7 / 3600) and mini.hours == pytest.approx(1000 / 3600)
    assert (maxi.requests_usd, maxi.idle_usd) == (0, maxi.bill_usd)


def test_bills_of_two_halves_make_the_whole(database: Database) -> None:
    price = MachinePrice(Decimal("1.7"), 1, 0.3)
    insert(database, engine_attempts(price, 50))
    now = DAY
    runs = Runs(database, {"mini": price.engine_usd_per_hour}, clock=lambda: now)
    runs.see()
    now += 1000
    runs.see()
    [whole], [early], [late] = (bills(database, *span) for span in ((DAY, now), (DAY, DAY + 125), (DAY + 125, now)))
    assert early.requests_usd + late.requests_usd == whole.requests_usd
    assert abs(early.bill_usd + late.bill_usd - whole.bill_usd) <= Decimal("1e-18")


def test_a_bill_needs_no_run(database: Database, tmp_path: Path) -> None:
    assert bills(database, 0, DAY) == []


def test_a_table_of_an_earlier_version_gets_its_new_columns(database: Database) -> None:
    database.execute("DROP INDEX attempts_spent")
    database.execute("ALTER TABLE attempts DROP COLUMN cost_nano")
    create(database)
    create(database)
    insert(database, [attempt(7, key_id="carol", cost_usd=Decimal(2))])
    assert spent(database, 0)["carol"] == 2
