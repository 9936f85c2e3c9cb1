"""Learns an `Estimator` from a table.

What is chosen is chosen by cross-validation over groups where the table has some (whole groups are held out, since prompts of
tomorrow come from subjects that the table has not), else over prompts: how strongly the regression shrinks, and how much the trees
count. Platt's curves and the floor of familiarity are fitted to the same held-out estimates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penstock.core.errors import UserError
from penstock.router.boosting import Growth, Trees, grow
from penstock.router.estimator import FORMAT, Card, Estimator, Linear, Prompts, mixed, similarity
from penstock.router.table import Table

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

LEAST = 40  # prompts
FOLDS = 3
SHRINK = (30.0, 100.0)  # of the ridge
SHARES = (0.25, 0.5, 0.75)  # of the trees in the mixture: both always count, held-out groups cannot tell what known ones gain by words
CG_STEPS = 15
MOST_TREES = 120
ROWS_PER_TREE = 4  # at least: a small table bears few trees
MOST_REFERENCE = 2048
STRANGE = 0.01  # share of held-out training prompts that count as out of distribution


class Encoder(Struct, frozen=True):
    """Whose vectors the prompts come with."""

    name: str = ""
    digest: str = ""


def train(table: Table, given: Prompts, encoder: Encoder, seed: int = 0) -> Estimator:
    """`given` are the table's prompts. Raises UserError for a table that is too small."""
    if len(table.prompts) < LEAST:
        hint = "score more prompts: some hundreds make a useful classifier"
        raise UserError(f"{len(table.prompts)} prompts are too few to learn from, the least is {LEAST}", hint=hint)
    targets = targets_of(table.scores)
    folds = list(splits(table.groups, FOLDS, seed))
    linear = {shrink: np.zeros_like(targets) for shrink in SHRINK}
    trees = np.zeros_like(targets)
    near = np.zeros(len(targets), dtype=np.float32)
    for train_at, test_at in folds:
        seen, unseen = given.only(train_at), given.only(test_at)
        made = ridge(seen, np.tile(targets[train_at], len(SHRINK)), np.repeat(SHRINK, targets.shape[1])).predict(unseen)
        for shrink, columns in zip(SHRINK, np.split(made, len(SHRINK), axis=1), strict=True):
            linear[shrink][test_at] = columns
        trees[test_at] = _grown(seen, targets[train_at], seed).predict(unseen.numbers)
        near[test_at] = similarity(unseen.vectors, _reference(seen.vectors, seed))
    shrink, share = _best(linear, trees, table.scores)
    held_out = mixed(linear[shrink], trees, share)
    card = Card(
        format=FORMAT,
        models=table.models,
        encoder=encoder.digest,
        encoder_name=encoder.name,
        prompts=len(table.prompts),
        table=table.digest,
        trees_share=share,
        floor=float(np.quantile(near, STRANGE)) if given.vectors.size else 0.0,
    )
    grown = _grown(given, targets, seed)
    return Estimator(card, ridge(given, targets, shrink), grown, fit_platt(held_out, targets), _reference(given.vectors, seed))


def targets_of(scores: Floats) -> Floats:
    """[n, 2 · models]: the scores, then whether no other model did better."""
    as_good = scores >= scores.max(axis=1, keepdims=True) - 1e-6
    return np.concatenate([scores, as_good], axis=1, dtype=np.float32)


def splits(groups: Sequence[str], count: int, seed: int) -> list[tuple[Places, Places]]:
    """Training and test places; whole groups are held out where there are two at least for each part."""
    rng = np.random.default_rng(seed)
    names, member = np.unique(np.array(groups), return_inverse=True)
    units = member if len(names) >= 2 * count else np.arange(len(groups))
    fold = (rng.permutation(int(units.max()) + 1) % count)[units]
    return [(np.flatnonzero(fold != part), np.flatnonzero(fold == part)) for part in range(count)]


def ridge(given: Prompts, targets: Floats, shrink: float | NDArray[np.float64]) -> Linear:
    """Ridge regression of all targets at once, by conjugate gradients (Hestenes and Stiefel 1952). `shrink` is for all, or for each."""
    shrink = np.asarray(shrink, dtype=np.float32)
    base = targets.mean(axis=0)
    presence = (given.words != 0).mean(axis=0)
    idf = np.log(1 / (presence + 1e-4)).astype(np.float32)
    spread = given.numbers.std(axis=0) + np.float32(1e-3)
    empty = Linear(given.numbers.mean(axis=0), spread, idf, np.empty((0, 0), dtype=np.float32), base)
    rows = empty.rows(given)
    left = rows.T @ (targets - base)
    weights, step = np.zeros_like(left), left.copy()
    size = (left**2).sum(axis=0)
    for _ in range(CG_STEPS):
        image = rows.T @ (rows @ step) + shrink * step
        length = size / np.maximum((step * image).sum(axis=0), 1e-30)
        weights += length * step
        left -= length * image
        former, size = size, (left**2).sum(axis=0)
        step = left + step * (size / np.maximum(former, 1e-30))
    return Linear(empty.centre, spread, idf, weights, base)


def fit_platt(raw: Floats, targets: Floats) -> Floats:
    """[2, targets]: slope and intercept, by Newton's steps; a weak prior keeps them finite. Targets may be fractions."""
    curves = []
    for values, wanted in zip(raw.T.astype(np.float64), targets.T.astype(np.float64), strict=True):
        design = np.stack([values, np.ones(len(values))], axis=1)
        curve = np.array([4.0, -2.0])  # σ(4x − 2) is near x
        for _ in range(50):
            likely = 1 / (1 + np.exp(-np.clip(design @ curve, -30, 30)))
            slope = design.T @ (likely - wanted) + 0.05 * curve
            bend = (design.T * (likely * (1 - likely) + 1e-6)) @ design + 0.05 * np.eye(2)
            curve = curve - np.clip(np.linalg.solve(bend, slope), -2.0, 2.0)  # a whole step may overshoot for ever
        curves.append((max(curve[0], 0.0), curve[1]))
    return np.array(curves, dtype=np.float32).T


def _grown(given: Prompts, targets: Floats, seed: int) -> Trees:
    return grow(given.numbers, targets, Growth(trees=min(MOST_TREES, len(targets) // ROWS_PER_TREE), seed=seed))


def _best(linear: dict[float, Floats], trees: Floats, scores: Floats) -> tuple[float, float]:
    """The shrinkage and the share with the least squared error of the differences between models: they are what routes."""
    count = scores.shape[1]
    wanted = scores - scores.mean(axis=1, keepdims=True)

    def error(shrink: float, share: float) -> float:
        made = mixed(linear[shrink], trees, share)[:, :count]
        return float(((made - made.mean(axis=1, keepdims=True) - wanted) ** 2).mean())

    return min(itertools.product(SHRINK, SHARES), key=lambda pair: error(*pair))


def _reference(vectors: Floats, seed: int) -> Floats:
    if len(vectors) <= MOST_REFERENCE:
        return vectors
    return vectors[np.random.default_rng(seed).choice(len(vectors), MOST_REFERENCE, replace=False)]
