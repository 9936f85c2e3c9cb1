"""A classifier against what needs none: on prompts, and on whole groups of prompts, that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penstock.core.errors import UserError
from penstock.core.types import Request
from penstock.router.curve import Part, Versus, Worth, curve, versus, worth
from penstock.router.estimator import Estimator, Prompts
from penstock.router.fixed import AUTO
from penstock.router.rules import points
from penstock.router.table import Table
from penstock.router.training import Encoder, splits, train
from penstock.router.traits import traits_of

Doubles = NDArray[np.float64]
Told = Callable[[str], None]

FOLDS = 5
OWN, RANDOM, LENGTH, RULES, ORACLE = "classifier", "random", "length only", "rules", "oracle"
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of strong calls, where the curve is told


class Report(Struct, frozen=True):
    """One way of testing. `curves`: quality at each of SHARES."""

    worth: dict[str, Worth]
    against_length: Versus
    curves: dict[str, list[float]]


def judged(table: Table, given: Prompts, estimator: Estimator) -> Part:
    """All of the table by one estimator, which knows both of its models."""
    return _part(table, given, estimator, np.arange(len(table.prompts)), unseen=False)


def cross_validated(
    table: Table, given: Prompts, *, unseen: bool, folds: int = FOLDS, seed: int = 0, told: Told | None = None
) -> Iterator[Part]:
    """One part for each fold, by an estimator trained on the others; with `unseen` whole groups are held out.

    Raises UserError where there are too few groups.
    """
    if unseen and len(set(table.groups)) < 2 * folds:
        hint = 'give rows a "group": a subject, a task, a customer'
        raise UserError(f"the table has {len(set(table.groups))} groups, {2 * folds} at least can be tested unseen", hint=hint)
    groups = table.groups if unseen else [""] * len(table.groups)
    for number, (train_at, test_at) in enumerate(splits(groups, folds, seed), 1):
        estimator = train(table.only(train_at), given.only(train_at), Encoder(), seed)
        part = _part(table, given, estimator, test_at, unseen=unseen)
        if told is not None:
            kind = "unseen groups" if unseen else "unseen prompts"
            told(f"{kind}, fold {number} of {folds}: {len(train_at):,} learnt, {len(test_at):,} tested")
        yield part


def report(table: Table, parts: Sequence[Part]) -> Report:
    weak = float(table.scores[:, 0].mean())
    curves = {name: [weak + gain for gain in _gains(parts, name)] for name in parts[0].scores}
    return Report(worth(parts), versus(parts, OWN, LENGTH), curves)


def _part(table: Table, given: Prompts, estimator: Estimator, places: NDArray[np.int64], *, unseen: bool) -> Part:
    scores = table.scores[places].astype(np.float64)
    gain = scores[:, 1] - scores[:, 0]
    score = estimator.estimate(given.only(places)).score
    weak, strong = (estimator.card.models.index(model) for model in table.models)
    by = {
        OWN: (score[:, strong] - score[:, weak]).astype(np.float64),
        RANDOM: np.zeros(len(places)),
        LENGTH: np.array([len(table.prompts[place]) for place in places], dtype=np.float64),
        RULES: np.array([_points(table.prompts[place]) for place in places], dtype=np.float64),
        ORACLE: gain,
    }
    members = np.unique(np.array([table.groups[place] for place in places]), return_inverse=True)[1]
    return Part(gain, by, members if unseen else None)


def _points(text: str) -> int:
    return sum(count for count, _ in points(traits_of(Request(id="", model=AUTO, prompt=text), text)))


def _gains(parts: Sequence[Part], name: str) -> Doubles:
    """At each of SHARES, what is gained over the weak model by a request: [len(SHARES)]"""
    found = []
    for part in parts:
        shares, recovered = curve(part.scores[name], part.gain)
        found.append(np.interp(SHARES, shares, recovered) * part.gain.mean())
    return np.asarray(np.mean(found, axis=0))
