"""Makes a `Calibration`: which confidence a model's answers deserve, and how much of it a cascade needs for a target quality.

The curves are linear splines with knots at quantiles, fitted together as one logistic regression with penalties on their bends, and
on their falls where more is better (Eilers and Marx 1996, "Flexible Smoothing with B-splines and Penalties"; Bollaerts et al. 2006,
"Simple and multiple P-splines regression with shape constraints"). Thresholds are chosen on answers that the curves at hand
have not been fitted to (five folds), from the strictest on and only as far as the cascade keeps its quality surely enough
(fixed-sequence testing: Angelopoulos et al. 2021, "Learn then Test").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from penstock.core.errors import UserError
from penstock.router.confidence import FALLING, FEATURES, NEVER, Calibration, Curve, Reading, Target

LEAST = 200  # answers; fewer say nothing about a target near 1
QUALITIES = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)
SURELY = 1.28  # standard errors that the quality is kept by: 90 %, one-sided

_KNOTS = (0.02, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.98)  # quantiles
_BENDS, _SIZE = 3.0, 0.05  # penalties on second differences and on the curves themselves
_FALLS = 1e4  # penalty on a curve that falls where more is better
_LONG = 0.9  # quantile of the answers' lengths: hardly any recovers by becoming still longer
_FOLDS = 5
_STEPS = 30

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Graded(Struct, frozen=True):
    """One question: what was read of the smaller model's answer, and whether its answer and the larger model's were right."""

    reading: Reading
    right: bool
    larger_right: bool


class Names(Struct, frozen=True, kw_only=True):
    """Whose calibration it is. `digest` is that of the smaller model's weights, "" where unknown."""

    model: str
    larger: str
    digest: str = ""


def calibrate(graded: Sequence[Graded], names: Names) -> Calibration:
    """Fit the curves to answers that were cut off nowhere. Raises UserError for too few, or where all or none are right."""
    graded = [one for one in graded if one.reading.whole and one.reading.tokens]
    right = np.array([one.right for one in graded], dtype=float)
    if len(graded) < LEAST or not 0 < right.sum() < len(right):
        what = f"{len(graded)} answers, {int(right.sum())} of them right"
        raise UserError(
            f"{what}, make no calibration", hint=f"at least {LEAST} with probabilities of their tokens, some right and some not"
        )
    values = [one.reading.features() for one in graded]
    columns = {name: np.array([value[name] for value in values]) for name in FEATURES}
    larger = np.array([one.larger_right for one in graded], dtype=float)
    fold = np.random.default_rng(0).permutation(len(graded)) % _FOLDS
    unseen = np.empty(len(graded))
    for part in range(_FOLDS):
        others = {name: column[fold != part] for name, column in columns.items()}
        held = {name: column[fold == part] for name, column in columns.items()}
        unseen[fold == part] = _predict(*_fit(others, right[fold != part]), held)
    intercept, curves = _fit(columns, right)
    return Calibration(
        model=names.model,
        larger=names.larger,
        digest=names.digest,
        intercept=intercept,
        curves=curves,
        longest=int(np.quantile([one.reading.tokens for one in graded], _LONG)),
        targets=targets(unseen, right, larger),
        measured={
            "answers": float(len(graded)),
            "accuracy": round(float(right.mean()), 4),
            "larger_accuracy": round(float(larger.mean()), 4),
            "auc": round(area(unseen, right), 4),
            "calibration_error": round(calibration_error(unseen, right), 4),
        },
    )


def targets(confidence: Floats, right: Floats, larger: Floats) -> tuple[Target, ...]:
    """For each of `QUALITIES` the least trust that keeps it: all three arrays are [answers]; 1.0 for right, 0.0 for wrong.

    With the answers above the trust kept, the cascade is right `sum(right[kept]) + sum(larger[rest])` times; what is compared with
    `quality * sum(larger)` is that less `SURELY` standard errors of the difference.
    """
    order = np.argsort(-confidence, kind="stable")
    gain = np.cumsum((right - larger)[order])
    doubt = np.sqrt(np.cumsum(((right - larger) ** 2)[order]))
    reached = 1.0 + (gain - SURELY * doubt) / max(larger.sum(), 1.0)
    sorted_down = confidence[order]
    ends = np.flatnonzero(np.append(np.diff(sorted_down) < 0, True))  # answers of equal confidence are kept together or not at all
    found = []
    for quality in QUALITIES:
        good = reached[ends] >= quality
        passed = len(ends) if good.all() else int(np.argmin(good))
        trust = float(sorted_down[ends[passed - 1]]) if passed else NEVER
        kept = (int(ends[passed - 1]) + 1) / len(right) if passed else 0.0
        found.append(Target(quality=quality, trust=round(trust, 6), kept=round(kept, 4)))
    return tuple(found)


def area(confidence: Floats, right: Floats) -> float:
    """The area under the ROC curve: how often a right answer has more confidence than a wrong one; equals count half."""
    values, place = np.unique(confidence, return_inverse=True)
    good = np.bincount(place, weights=right, minlength=len(values))
    bad = np.bincount(place, weights=1 - right, minlength=len(values))
    below = np.concatenate(([0.0], np.cumsum(bad)[:-1]))
    return float((good * (below + bad / 2)).sum() / max(good.sum() * bad.sum(), 1.0))


def calibration_error(confidence: Floats, right: Floats, bins: int = 10) -> float:
    """The mean distance of confidence and accuracy over `bins` equally filled bins (Naeini et al. 2015)."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return float(sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in parts if len(part)) / len(right))


def _fit(columns: Mapping[str, Floats], right: Floats) -> tuple[float, dict[str, Curve]]:
    """Penalised logistic regression by Newton's method."""
    knots = {name: found for name, column in columns.items() if len(found := _knots(column)) > 1}
    design = np.hstack([np.ones((len(right), 1)), *(_hats(columns[name], xs) for name, xs in knots.items())])
    smooth, rises = _penalties(knots)
    weights = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        probability = _logistic(design @ weights)
        falls = rises[rises @ weights < 0]
        penalty = smooth + _FALLS * falls.T @ falls
        slope = design.T @ (right - probability) - penalty @ weights
        curvature = (design.T * (probability * (1 - probability))) @ design + penalty + 1e-6 * np.eye(len(weights))
        step = np.linalg.solve(curvature, slope)
        weights = weights + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-5:
            break
    curves, start = {}, 1
    for name, xs in knots.items():
        ys = _risen(name, weights[start : start + len(xs)])
        curves[name] = Curve(tuple(round(float(x), 5) for x in xs), tuple(round(float(y), 5) for y in ys))
        start += len(xs)
    return round(float(weights[0]), 5), curves


def _penalties(knots: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """A quadratic form over all weights, the intercept first, and the differences that must not be negative, [differences, weights]."""
    total = 1 + sum(map(len, knots.values()))
    smooth, rises, start = np.zeros((total, total)), [np.zeros((0, total))], 1
    for name, xs in knots.items():
        block = slice(start, start + len(xs))
        bends = np.diff(np.eye(len(xs)), 2, axis=0) if len(xs) > 2 else np.zeros((1, len(xs)))
        smooth[block, block] = _BENDS * bends.T @ bends + _SIZE * np.eye(len(xs))
        if name in FALLING:
            rise = np.zeros((len(xs) - 1, total))
            rise[:, block] = np.diff(np.eye(len(xs)), axis=0)
            rises.append(rise)
        start += len(xs)
    return smooth, np.vstack(rises)


def _risen(name: str, ys: Floats) -> Floats:
    """Without the little that the penalty has left of a fall."""
    return np.maximum.accumulate(ys) if name in FALLING else ys


def _predict(intercept: float, curves: Mapping[str, Curve], columns: Mapping[str, Floats]) -> Floats:
    logits = np.full(len(columns["total"]), intercept)
    for name, curve in curves.items():
        logits += np.interp(columns[name], curve.xs, curve.ys)
    return _logistic(logits)


def _knots(column: Floats) -> Floats:
    """Apart enough to stay so when they are rounded; one alone where the feature hardly varies."""
    xs = np.unique(np.round(np.quantile(column, _KNOTS), 3))
    if len(xs) == 1 and column.min() < column.max():
        xs = np.array([column.min(), column.max()])
    return xs


def _hats(column: Floats, xs: Floats) -> Floats:
    """How much each knot weighs at each value, [answers, knots]: straight between knots, level beyond them."""
    return np.stack([np.interp(column, xs, unit) for unit in np.eye(len(xs))], axis=1)


def _logistic(logits: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0)))
