"""The table `attempts`: one row for each call of an upstream, written once and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from penstock.core.types import Attempt
from penstock.meter.counters.account import nano_usd
from penstock.meter.database import Database, Value

ROWS = 64  # of one INSERT: what is done between two chances for the event loop to go on

COLUMNS = {
    "id": "TEXT PRIMARY KEY",
    "request_id": "TEXT NOT NULL",
    "number": "BIGINT NOT NULL",
    "purpose": "TEXT NOT NULL",
    "key_id": "TEXT NOT NULL",
    "tenant": "TEXT NOT NULL",
    "asked": "TEXT NOT NULL",  # the model as the client named it
    "upstream": "TEXT NOT NULL",
    "model": "TEXT NOT NULL",  # the model that was called
    "started_at": "DOUBLE PRECISION NOT NULL",  # unix seconds
    "reason": "TEXT NOT NULL",
    "failure": "TEXT",
    "prompt_tokens": "BIGINT NOT NULL",
    "completion_tokens": "BIGINT NOT NULL",
    "cached_tokens": "BIGINT NOT NULL",
    "cache_write_tokens": "BIGINT NOT NULL",
    "reasoning_tokens": "BIGINT NOT NULL",
    "estimated": "BIGINT NOT NULL",
    "prefill_s": "DOUBLE PRECISION",
    "decode_s": "DOUBLE PRECISION",
    "kv_s": "DOUBLE PRECISION",
    "kv_block_s": "DOUBLE PRECISION",
    "queue_s": "DOUBLE PRECISION",
    "ttft_s": "DOUBLE PRECISION",
    "e2e_s": "DOUBLE PRECISION",
    "cost_usd": "{money}",  # NULL: unknown
    "saved_usd": "{money}",
    "cost_nano": "BIGINT",  # billionths of a dollar, rounded up: what budgets count, and what adds up fast
}

_TABLE = f"CREATE TABLE IF NOT EXISTS attempts ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})"
_SPENT = "CREATE INDEX IF NOT EXISTS attempts_spent ON attempts (started_at, key_id, cost_nano)"  # all that `spent` reads
_INSERT = f"INSERT INTO attempts ({', '.join(COLUMNS)}) VALUES "
_MARKS = f"({', '.join('?' * len(COLUMNS))})"


def create(database: Database) -> None:
    """Make the table where it is not there, and the columns that one of an earlier version has not. Raises DatabaseDown."""
    with database.transaction():
        database.create(_TABLE)
        there = database.columns("attempts")
        added = [f"ALTER TABLE attempts ADD COLUMN {name} {kind}" for name, kind in COLUMNS.items() if name not in there]
        database.create(*added, _SPENT)


def insert(database: Database, attempts: Sequence[Attempt]) -> None:
    """Write rows that are not there yet; a row that is there stays as it is. Raises DatabaseDown."""
    for start in range(0, len(attempts), ROWS):
        some = attempts[start : start + ROWS]
        values: list[Value] = []
        for attempt in some:
            values += row(attempt)
        database.execute(f"{_INSERT}{', '.join([_MARKS] * len(some))} ON CONFLICT (id) DO NOTHING", values)


def row(attempt: Attempt) -> tuple[Value, ...]:
    """The values of `attempt` in the order of `COLUMNS`."""
    usage, use, timings = attempt.usage, attempt.use, attempt.timings
    shares = (None, None, None, None) if use is None else (use.prefill_s, use.decode_s, use.kv_s, use.kv_block_s)
    return (
        attempt.id, attempt.request_id, attempt.number, attempt.purpose, attempt.key_id, attempt.tenant,
        attempt.model, attempt.route.upstream, attempt.route.model, attempt.started_at, attempt.reason, attempt.failure,
        usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens,
        int(usage.estimated), *shares, timings.queue_s, timings.ttft_s, timings.e2e_s, attempt.cost_usd, attempt.saved_usd,
        None if attempt.cost_usd is None else nano_usd(attempt.cost_usd),
    )  # fmt: skip


def missing(database: Database, attempts: Sequence[Attempt]) -> int:
    """How many of `attempts` have no row. Raises DatabaseDown."""
    found = 0
    for start in range(0, len(attempts), ROWS):
        ids = [attempt.id for attempt in attempts[start : start + ROWS]]
        found += database.query(f"SELECT count(*) FROM attempts WHERE id IN ({', '.join('?' * len(ids))})", ids)[0][0]
    return len({attempt.id for attempt in attempts}) - found


def spent(database: Database, since: float) -> dict[str, Decimal]:
    """What each key has spent since then (unix seconds), as budgets count it: each attempt in billionths of a dollar, rounded up.

    What has no known cost is left out. Raises DatabaseDown.
    """
    rows = database.query("SELECT key_id, sum(cost_nano) FROM attempts WHERE started_at >= ? GROUP BY key_id", (since,))
    return {key: Decimal(int(total or 0)).scaleb(-9) for key, total in rows}
