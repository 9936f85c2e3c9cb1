"""Shares with their intervals, and tables of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Share:
    """`hits` of `number`."""

    hits: int
    number: int

    @property
    def value(self) -> float:
        return self.hits / self.number if self.number else float("nan")

    def interval(self) -> tuple[float, float]:
        """Wilson's."""
        if not self.number:
            return 0.0, 1.0
        n, p = self.number, self.value
        middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z * ((p * (1 - p) + Z * Z / (4 * n)) / n) ** 0.5 / (1 + Z * Z / n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.value:6.1%} [{low:.1%}, {high:.1%}]" if self.number else "none"


@dataclass(frozen=True)
class Row:
    """One line of a table: shares or plain numbers by the column's name."""

    name: str
    cells: dict[str, Share | float | int | str]

    def figures(self) -> dict[str, object]:
        """The cells as they go into JSON: a share with its interval and the number of rows."""
        found: dict[str, object] = {}
        for name, cell in self.cells.items():
            if isinstance(cell, Share):
                low, high = cell.interval()
                found[name] = (
                    {"share": round(cell.value, 4), "low": round(low, 4), "high": round(high, 4), "rows": cell.number}
                    if cell.number
                    else None
                )
            else:
                found[name] = (None if math.isnan(cell) else round(cell, 4)) if isinstance(cell, float) else cell
        return found


@dataclass(frozen=True)
class Table:
    """Rows under a title."""

    title: str
    rows: list[Row] = field(default_factory=list)


def print_table(table: Table) -> None:
    """The table as people read it."""
    names = list(dict.fromkeys(name for row in table.rows for name in row.cells))
    lines = [["", *names]] + [[row.name, *(_cell(row.cells.get(name, "")) for name in names)] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{table.title}")
    for line in lines:
        print(
            "  ".join(
                cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
        )


def _cell(cell: object) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def auc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, ties half."""
    label, score = np.array(labels, dtype=bool), np.array(scores)
    if label.all() or not label.any():
        return float("nan")
    _, inverse, counted = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counted) - (counted - 1) / 2)[inverse]
    positive, negative = label.sum(), (~label).sum()
    return float((ranks[label].sum() - positive * (positive + 1) / 2) / (positive * negative))
