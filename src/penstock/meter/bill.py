"""What engines of our own cost while they ran, whether anybody asked or not.

An engine's bill is the time it ran times its part of the machine's price. Requests paid some of it; the rest was idle time:
Σ requests + idle = bill. The table `runs` has one row for each run of an engine, whose end is moved on while it runs.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct

from penstock.meter.database import Database

SEEN_S = 10.0  # a process that is killed ran up to so much longer than its bill says

_TABLE = (
    "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, upstream TEXT NOT NULL, usd_per_hour {money} NOT NULL, "
    "started_at DOUBLE PRECISION NOT NULL, seen_at DOUBLE PRECISION NOT NULL)"
)
_SEE = "INSERT INTO runs VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"
_REQUESTS = """SELECT count(*), money_sum(cost_usd), sum(prefill_s + decode_s)
    FROM attempts WHERE upstream = ? AND started_at >= ? AND started_at < ?"""


class EngineBill(Struct, frozen=True, kw_only=True):
    """One engine's bill for a stretch of time. US dollars; requests_usd + idle_usd = bill_usd, to the last digit."""

    upstream: str
    hours: float
    busy_hours: float
    attempts: int
    bill_usd: Decimal
    requests_usd: Decimal
    idle_usd: Decimal


class Runs:
    """The runs of this process's engines. `usd_per_hour` says what each costs."""

    def __init__(self, database: Database, usd_per_hour: Mapping[str, Decimal], clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._usd_per_hour = usd_per_hour
        self._clock = clock
        self._started_at = self._seen_at = clock()
        self._run = secrets.token_hex(8)
        self._noted = False

    def see(self, *, due: bool = False) -> None:
        """The engines still run; written down every SEEN_S, and when it is due. Raises DatabaseDown."""
        now = self._clock()
        if not self._usd_per_hour or (self._noted and not due and now - self._seen_at < SEEN_S):
            return
        if not self._noted:
            create(self._database)
        rows = [(f"{self._run}/{name}", name, price, self._started_at, now) for name, price in self._usd_per_hour.items()]
        self._database.executemany(_SEE, rows)
        self._seen_at = now
        self._noted = True


def create(database: Database) -> None:
    """Make the table where it is not there. Raises DatabaseDown."""
    database.create(_TABLE)


def bills(database: Database, since: float, until: float) -> Sequence[EngineBill]:
    """What each engine cost between two times (unix seconds). Raises DatabaseDown.

    An attempt belongs to the stretch in which it began.
    """
    create(database)
    sql = "SELECT upstream, usd_per_hour, started_at, seen_at FROM runs WHERE seen_at > ? AND started_at < ? ORDER BY upstream"
    parts: dict[str, list[tuple[Decimal, float]]] = {}
    for upstream, price, started_at, seen_at in database.query(sql, (since, until)):
        seconds = min(seen_at, until) - max(started_at, since)
        parts.setdefault(upstream, []).append((Decimal(str(price)), seconds))
    return [_bill(database, upstream, runs, since, until) for upstream, runs in parts.items()]


def _bill(database: Database, upstream: str, runs: Sequence[tuple[Decimal, float]], since: float, until: float) -> EngineBill:
    bill = sum((price * Decimal(round(seconds * 10**9)) / (3600 * 10**9) for price, seconds in runs), Decimal(0))
    attempts, cost, busy_s = database.query(_REQUESTS, (upstream, since, until))[0]
    requests = Decimal(str(cost or 0))
    bill = bill.quantize(Decimal("1e-18"))
    return EngineBill(
        upstream=upstream,
        hours=sum(seconds for _, seconds in runs) / 3600,
        busy_hours=(busy_s or 0.0) / 3600,
        attempts=attempts,
        bill_usd=bill,
        requests_usd=requests,
        idle_usd=bill - requests,
    )
