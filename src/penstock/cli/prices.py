"""`penstock prices`: what is known to cost how much, and from where."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from penstock.cli.settings import read
from penstock.core.config import PriceSettings
from penstock.meter.book import Entry, PriceFile, read_prices, shipped_lists

COLUMNS = ("vendor", "model", "prompt", "cached", "cache write", "output", "reasoning", "as of")


def run(arguments: argparse.Namespace) -> int:
    settings = read(arguments, ()).prices
    lines = [line for line in _lines(settings) if arguments.model is None or fnmatch.fnmatch(line[1], arguments.model)]
    if not lines:
        print(f"no price of {arguments.model!r} is known: `prices.file` can tell one")
        return 0
    widths = [max(map(len, column)) for column in zip(COLUMNS, *lines, strict=True)]
    for line in (COLUMNS, *lines):
        cells = (cell.rjust(width) if 2 <= i < 7 else cell.ljust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        print("  ".join(cells).rstrip())
    print("US dollars per million tokens; an earlier line goes before a later one")
    if settings.machine_usd_per_hour is not None:
        print(f"engines of our own share a machine of {settings.machine_usd_per_hour} dollars per hour")
    return 0


def _lines(settings: PriceSettings) -> Iterator[tuple[str, ...]]:
    own = read_prices(Path(settings.file).expanduser()) if settings.file else PriceFile()
    for entry in own.prices:
        yield from _entry(entry, entry.upstream or "any", "yours")
    for prices in (*own.lists, *shipped_lists()):
        for entry in prices.prices:
            yield from _entry(entry, prices.vendor, str(prices.as_of))


def _entry(entry: Entry, vendor: str, as_of: str) -> Iterator[tuple[str, ...]]:
    rates = (entry.prompt, entry.cached, entry.cache_write, entry.completion, entry.reasoning)
    for model in entry.models:
        above = f" above {entry.above_prompt_tokens:,}" if entry.above_prompt_tokens else ""
        yield vendor, model + above, *map(_rate, rates), as_of


def _rate(rate: Decimal | None) -> str:
    return "" if rate is None else format(rate.normalize(), "f")
