"""`penstock guard calibrate`: thresholds from your own innocent traffic."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from penstock.core.errors import UserError

if TYPE_CHECKING:
    from penstock.guard.calibration import Calibration
    from penstock.guard.traffic import Scores


def run(arguments: argparse.Namespace) -> int:
    from penstock.guard.traffic import calibrate, read_samples, scored

    if not 0 < arguments.false_alarms < 1:
        raise UserError(
            f"--false-alarms is {arguments.false_alarms:g}; it is a share between 0 and 1", hint="0.01 is one text in a hundred"
        )
    found = scored(arguments.rule, read_samples(arguments.file))
    calibration = calibrate(arguments.rule, found, arguments.false_alarms)
    arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n")
    print("\n".join(_lines(found, calibration)))
    print(f'wrote {arguments.out}; use it with calibration = "{arguments.out}" in the rule {arguments.rule!r}')
    return 0


def _lines(found: list[Scores], calibration: Calibration) -> Iterator[str]:
    """What each head's threshold became, beside what ships."""
    from penstock.guard.calibration import needed, upper_bound

    for scores in found:
        head, values = scores.head, scores.values
        least = needed(calibration.false_alarms)
        if (limit := calibration.limits.get(head.name)) is None:
            yield f"{head.name}: {len(values)} texts, {least} are needed; the threshold that ships stays, {head.threshold:.3f}"
            continue
        shipped = sum(value > head.threshold for value in values)
        yield f"{head.name}: threshold {limit.threshold:.3f} stops {limit.above} of {limit.samples}, at most {limit.bound:.2%} of all"
        bound = upper_bound(shipped, len(values))
        yield f"{head.name}: the one that ships, {head.threshold:.3f}, stops {shipped}, at most {bound:.2%}"
