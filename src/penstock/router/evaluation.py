"""A classifier against what needs none: on prompts, and on whole groups of prompts, that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from msgspec import Struct

from penstock.core.errors import UserError
from penstock.core.types import Request
from penstock.router.curve import Part, Versus, Worth, curve, versus, worth
from penstock.router.estimator import Estimator, Prompts
from penstock.router.fixed import AUTO
from penstock.router.rules import points
from penstock.router.table import Table
from penstock.router.training import Encoder, Places, splits, train
from penstock.router.traits import traits_of

Told = Callable[[str], None]
Fold = tuple[Places, Places]  # of the prompts that are learnt from, and of those that are tested

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


def held_out(table: Table, *, unseen: bool, folds: int = FOLDS, seed: int = 0) -> list[Fold]:
    """One partition of the table: what is learnt from and what is tested; with `unseen` whole groups are.

    Raises UserError where there are too few groups.
    """
    if unseen and len(set(table.groups)) < 2 * folds:
        hint = 'give rows a "group": a subject, a task, a customer'
        raise UserError(f"the table has {len(set(table.groups))} groups, {2 * folds} at least can be tested unseen", hint=hint)
    return splits(table.groups if unseen else [""] * len(table.groups), folds, seed)


def assessed(table: Table, given: Prompts, fold: Fold, *, unseen: bool, seed: int = 0) -> Part:
    """A classifier that learnt from one part of the table, on the other."""
    train_at, test_at = fold
    estimator = train(table.only(train_at), given.only(train_at), Encoder(), seed)
    return _part(table, given, estimator, test_at, unseen=unseen)


def cross_validated(
    table: Table, given: Prompts, *, unseen: bool, folds: int = FOLDS, seed: int = 0, told: Told | None = None
) -> Iterator[Part]:
    """One part for each fold of a partition. Raises UserError where there are too few groups."""
    for number, fold in enumerate(held_out(table, unseen=unseen, folds=folds, seed=seed), 1):
        part = assessed(table, given, fold, unseen=unseen, seed=seed)
        if told is not None:
            kind = "unseen groups" if unseen else "unseen prompts"
            told(f"{kind}, fold {number} of {folds}: {len(fold[0]):,} learnt, {len(fold[1]):,} tested")
        yield part


def report(table: Table, parts: Sequence[Part]) -> Report:
    weak = float(table.scores[:, 0].mean())
    curves = {name: [weak + float(gain) for gain in curve(parts, name, np.array(SHARES))] for name in parts[0].scores}
    return Report(worth(parts), versus(parts, OWN, LENGTH), curves)


def _part(table: Table, given: Prompts, estimator: Estimator, places: Places, *, unseen: bool) -> Part:
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
    members = np.unique(np.array(table.groups), return_inverse=True)[1][places]
    return Part(gain, by, members if unseen else None)


def _points(text: str) -> int:
    return sum(count for count, _ in points(traits_of(Request(id="", model=AUTO, prompt=text), text)))
