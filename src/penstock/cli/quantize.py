"""`penstock quantize MODEL OUT`: a model in fewer bits, ahead of serving it."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from penstock.app.bars import StageBars
from penstock.app.quantizing import Reading, quantize
from penstock.core.errors import UserError
from penstock.engine.quant.formats import parse_format


def run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    form = parse_format(arguments.format)
    for number in (signal.SIGTERM, signal.SIGHUP):  # unlike Ctrl-C these would end the process with its work left behind
        signal.signal(number, _leave)
    with StageBars(enabled=sys.stderr.isatty()) as bars:
        made = quantize(arguments.model, arguments.out, form, arguments.method, _reading(arguments), bars)
    for name in made.floats:
        print(f"{name} stays in float: its sizes do not divide into groups of {form.name}")
    sizes = f"{made.num_bytes / 2**20:.1f} MiB, was {made.source_bytes / 2**20:.1f}"
    print(f"{arguments.out}: {form.name} by {arguments.method}, {sizes}, in {time.monotonic() - started:.0f} s")
    print(f"serve it with: penstock serve {arguments.out}")
    return 0


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _reading(arguments: argparse.Namespace) -> Reading | None:
    if arguments.calibration is None:
        return None
    if arguments.windows < 1:
        raise UserError(f"--windows is {arguments.windows}", hint="use 1 or more; 64 is the default")
    return Reading(file=arguments.calibration, windows=arguments.windows, context=arguments.context)
