"""The table `judgements`: one row for each decision of a guard, the cache or the router, written once and never changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from penstock.core.types import Judged
from penstock.meter import usage
from penstock.meter.database import Database, Value
from penstock.meter.usage import Filter
from penstock.trace.events import Ended

ROWS = 64  # of one INSERT, as for attempts

COLUMNS = {
    "id": "TEXT PRIMARY KEY",
    "request_id": "TEXT NOT NULL",
    "started_at": "DOUBLE PRECISION NOT NULL",  # unix seconds, of the request
    "key_id": "TEXT NOT NULL",
    "tenant": "TEXT NOT NULL",
    "asked": "TEXT NOT NULL",  # the model as the client named it
    "room": "TEXT NOT NULL",
    "rule": "TEXT NOT NULL",
    "action": "TEXT NOT NULL",
    "why": "TEXT NOT NULL",
    "score": "DOUBLE PRECISION",
    "shadow": "BIGINT NOT NULL",
    "took_s": "DOUBLE PRECISION NOT NULL",
}

_TABLE = f"CREATE TABLE IF NOT EXISTS judgements ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})"
_ASKED = "CREATE INDEX IF NOT EXISTS judgements_asked ON judgements (started_at, key_id, room, rule, action, shadow)"
_INSERT = f"INSERT INTO judgements ({', '.join(COLUMNS)}) VALUES "
_MARKS = f"({', '.join('?' * len(COLUMNS))})"


class JudgementRow(Struct, frozen=True, kw_only=True):
    """How often one thing was decided."""

    room: str
    rule: str
    action: str
    shadow: bool
    requests: int
    judgements: int
    mean_score: float | None


def judged(ended: Ended) -> list[Judged]:
    """The rows of a request that has ended."""
    request = ended.request
    return [
        Judged(
            id=f"{request.id}!{number}",
            request_id=request.id,
            started_at=ended.arrived_at,
            key_id=request.principal.key_id,
            tenant=request.tenant,
            model=request.model,
            judgement=judgement,
        )
        for number, judgement in enumerate(ended.judgements)
    ]


def create(database: Database) -> None:
    """Make the table where it is not there. Raises DatabaseDown."""
    with database.transaction():
        database.create(_TABLE, _ASKED)


def insert(database: Database, rows: Sequence[Judged]) -> None:
    """Write rows that are not there yet; a row that is there stays as it is. Raises DatabaseDown."""
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        values = [value for row in some for value in _row(row)]
        database.execute(f"{_INSERT}{', '.join([_MARKS] * len(some))} ON CONFLICT (id) DO NOTHING", values)


def counted(database: Database, only: Filter) -> Sequence[JudgementRow]:
    """How often each thing was decided, by room, rule and action. Raises DatabaseDown."""
    where, values = only.where()
    sums = "count(DISTINCT request_id), count(*), avg(score)"
    rows = database.query(
        f"SELECT room, rule, action, shadow, {sums} FROM judgements WHERE {where} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4", values
    )
    return [
        JudgementRow(
            room=room, rule=rule, action=action, shadow=bool(shadow), requests=requests, judgements=count,
            mean_score=None if score is None else float(score),
        )
        for room, rule, action, shadow, requests, count, score in rows
    ]  # fmt: skip


def rows(database: Database, only: Filter) -> Iterator[dict[str, Value]]:
    """Every judgement, the oldest first. Raises DatabaseDown."""
    return usage.rows(database, only, "judgements", COLUMNS)


def _row(row: Judged) -> tuple[Value, ...]:
    said = row.judgement
    return (
        row.id, row.request_id, row.started_at, row.key_id, row.tenant, row.model,
        said.room, said.rule, said.action, said.why, said.score, int(said.shadow), said.took_s,
    )  # fmt: skip
