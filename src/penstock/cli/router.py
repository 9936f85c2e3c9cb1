"""`penstock router …`: what the router learns from your own data."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from penstock.cli.settings import read
from penstock.core.errors import UserError
from penstock.core.settings import Settings

if TYPE_CHECKING:
    from penstock.router.evaluation import Report
    from penstock.router.table import Table


def run(arguments: argparse.Namespace) -> int:
    return ACTIONS[arguments.action](arguments)


def calibrate(arguments: argparse.Namespace) -> int:
    """Ask both models every question, fit the smaller one's calibration, write it down."""
    from penstock.app.calibration import calibrated, read_questions

    questions = read_questions(arguments.file)
    settings = read(arguments, () if arguments.config else (arguments.small, arguments.large), with_keys=True)
    small, large = _served(settings, arguments)
    calibration = asyncio.run(calibrated(settings, small, large, questions))
    arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n")
    measured = calibration.measured
    print(f"{small}: {measured['accuracy']:.1%} right, {large}: {measured['larger_accuracy']:.1%}, of {measured['answers']:.0f} answers")
    print(f"confidence: AUC {measured['auc']:.3f}, calibration error {measured['calibration_error']:.3f} (on answers not fitted to)")
    for target in calibration.targets:
        print(f"{target.quality:6.1%} of {large}'s accuracy: trust {target.trust:.3f} keeps {target.kept:.1%} with {small}")
    print(f'wrote {arguments.out}; use it with router.calibration = "{arguments.out}"')
    return 0


def _served(settings: Settings, arguments: argparse.Namespace) -> tuple[str, str]:
    """The names under which both are served: those of a config file as they are, else what the command line loads."""
    if arguments.config is None:
        small, large = (model.name for model in settings.models)
        return small, large
    if not settings.upstreams:
        known = [model.name for model in settings.models]
        for given in (arguments.small, arguments.large):
            if given not in known:
                raise UserError(f"{given!r} is not served by {arguments.config}", hint=f"served there: {', '.join(known)}")
    return arguments.small, arguments.large


def train(arguments: argparse.Namespace) -> int:
    """Learn a classifier from a table of scores, write it down."""
    from penstock.app.learning import trained

    card = trained(arguments.file, arguments.out, arguments.encoder).card
    print(f"learnt from {card.prompts:,} prompts and the answers of {', '.join(card.models)}, with {card.encoder_name or 'no'} vectors")
    print(f'wrote {arguments.out}; use it with router.policy = "classifier" and router.classifier = "{arguments.out}"')
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Print what a classifier is worth beside routing that needs none."""
    from penstock.app.learning import chosen_pair, evaluated
    from penstock.router.table import read_table

    table = chosen_pair(read_table(arguments.file), arguments.weak, arguments.strong)
    reports = evaluated(table, arguments.encoder, arguments.classifier, lambda line: print(line, file=sys.stderr))
    for name, found in reports:
        print("\n".join(lines(name, table, found)))
    return 0


def lines(name: str, table: Table, found: Report) -> Iterator[str]:
    """A report as people read it."""
    from penstock.router.evaluation import SHARES

    weak, strong = table.models
    yield f"\n{name}: {weak} ({table.scores[:, 0].mean():.1%} right) or {strong} ({table.scores[:, 1].mean():.1%})"
    yield f"{'router':<12}  {'APGR':>6}  {'95 % interval':<16}  {'CPT(50 %)':>9}  {'CPT(80 %)':>9}"
    for router, worth in found.worth.items():
        interval = f"{worth.low:.3f} to {worth.high:.3f}"
        yield f"{router:<12}  {worth.apgr:6.3f}  {interval:<16}  {_percent(worth.cpt50):>9}  {_percent(worth.cpt80):>9}"
    more = found.against_length
    yield f"classifier against length only: {more.more:+.3f} ({more.low:+.3f} to {more.high:+.3f}), p = {more.p:.4f}"
    names = list(found.curves)
    yield f"{strong + ' asked':<16}  " + (f"{'$ per 1,000':>12}  " if table.costs else "") + "  ".join(f"{one:>11}" for one in names)
    for place, share in enumerate(SHARES):
        cost = f"{1000 * (table.costs[0] * (1 - share) + table.costs[1] * share):12.4f}  " if table.costs else ""
        note = f" always {weak}" if share == 0 else f" always {strong}" if share == 1 else ""
        yield f"{share:<16.0%}  {cost}" + "  ".join(f"{found.curves[one][place]:11.1%}" for one in names) + note


def _percent(share: float | None) -> str:
    return "never" if share is None else f"{share:.1%}"


ACTIONS = {"calibrate": calibrate, "train": train, "evaluate": evaluate}
