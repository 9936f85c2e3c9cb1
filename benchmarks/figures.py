"""What the benchmarks share: shares with their intervals, areas under curves, and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]

Z = 1.959964  # of a 95 % interval


def wilson(hits: int, number: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927); of none: all that a share can be."""
    if not number:
        return 0.0, 1.0
    n, p = number, hits / number
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * ((p * (1 - p) + Z * Z / (4 * n)) / n) ** 0.5 / (1 + Z * Z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


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
        return wilson(self.hits, self.number)

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


def ranks(values: ArrayLike) -> Numbers:
    """From 1; equal values share their mean rank."""
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place], dtype=np.float64)


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, ties half (Mann and Whitney's U as a share)."""
    label = np.asarray(labels, dtype=bool)
    positive, negative = int(label.sum()), int((~label).sum())
    if not positive or not negative:
        return float("nan")
    return float((ranks(scores)[label].sum() - positive * (positive + 1) / 2) / (positive * negative))
