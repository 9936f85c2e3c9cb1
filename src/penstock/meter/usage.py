"""Questions to the ledger: how much was used, by whom, of what, when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from penstock.meter.attempts import COLUMNS
from penstock.meter.database import Database, Value

By = Literal["key", "model", "route", "day"]

PAGE = 5000  # rows fetched at a time, so that an export of any size fits in memory

_GROUPS: Mapping[By, Mapping[str, str]] = {
    "key": dict.fromkeys(("sqlite", "postgresql"), "key_id"),
    "model": dict.fromkeys(("sqlite", "postgresql"), "model"),
    "route": dict.fromkeys(("sqlite", "postgresql"), "upstream || '/' || model"),
    "day": {
        "sqlite": "date(started_at, 'unixepoch')",
        "postgresql": "to_char(to_timestamp(started_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    },
}
_SUMS = (
    "count(*)",
    "sum(CASE WHEN number = 0 THEN 1 ELSE 0 END)",
    "sum(CASE WHEN reason = 'error' THEN 1 ELSE 0 END)",
    "sum(prompt_tokens)",
    "sum(cached_tokens)",
    "sum(completion_tokens)",
    "sum(reasoning_tokens)",
    "sum(estimated)",
    "sum(CASE WHEN cost_usd IS NULL THEN 1 ELSE 0 END)",
    "money_sum(cost_usd)",
    "money_sum(saved_usd)",
)


class Filter(Struct, frozen=True, kw_only=True):
    """Which attempts: begun from `since` to before `until` (unix seconds), of one key. None: no bound."""

    since: float | None = None
    until: float | None = None
    key_id: str | None = None

    def where(self) -> tuple[str, list[Value]]:
        """The SQL condition and its values."""
        bounds = {"started_at >= ?": self.since, "started_at < ?": self.until, "key_id = ?": self.key_id}
        given = {sql: value for sql, value in bounds.items() if value is not None}
        return " AND ".join(given) or "1 = 1", list(given.values())


class UsageRow(Struct, frozen=True, kw_only=True):
    """Sums over the attempts of one key, model, route or UTC day."""

    name: str
    attempts: int
    requests: int  # those whose first attempt is here, so that they add up
    errors: int
    prompt_tokens: int
    cached_tokens: int  # of prompt_tokens
    completion_tokens: int
    reasoning_tokens: int  # of completion_tokens
    estimated: int  # attempts whose tokens no upstream told
    unknown_cost: int  # attempts without a known price; `cost_usd` is the sum of the others
    cost_usd: Decimal
    saved_usd: Decimal


def usage(database: Database, by: By, only: Filter) -> Sequence[UsageRow]:
    """One row for each key, model, route or UTC day, in their order. Raises DatabaseDown."""
    where, values = only.where()
    group = _GROUPS[by][database.dialect]
    rows = database.query(f"SELECT {group}, {', '.join(_SUMS)} FROM attempts WHERE {where} GROUP BY 1 ORDER BY 1", values)
    return [_row(*row) for row in rows]


def rows(database: Database, only: Filter, table: str = "attempts", columns: Mapping[str, str] = COLUMNS) -> Iterator[dict[str, Value]]:
    """Every row of a table of the ledger, the oldest first. Raises DatabaseDown."""
    where, values = only.where()
    names = list(columns)
    last: list[Value] = [float("-inf"), ""]
    sql = f"SELECT {', '.join(names)} FROM {table} WHERE {where} AND (started_at, id) > (?, ?) ORDER BY started_at, id LIMIT {PAGE}"
    while page := database.query(sql, [*values, *last]):
        for row in page:
            yield dict(zip(names, row, strict=True))
        last = [page[-1][names.index("started_at")], page[-1][names.index("id")]]


def _row(name: str, *sums: int | str | Decimal | None) -> UsageRow:
    *counts, cost, saved = sums
    fields = UsageRow.__struct_fields__
    numbers = {field: int(count or 0) for field, count in zip(fields[1:-2], counts, strict=True)}
    return UsageRow(name=name, **numbers, cost_usd=Decimal(str(cost or 0)), saved_usd=Decimal(str(saved or 0)))
