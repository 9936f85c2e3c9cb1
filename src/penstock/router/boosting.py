"""Gradient boosting of oblivious trees (Friedman 2001; Prokhorenkova et al. 2018), several targets at once, in numpy.

A tree asks the same question at all nodes of a level, so it is `depth` pairs of a column and a threshold and a table of 2^depth
leaves; a leaf holds a step for each target. Targets share the questions and lend each other strength: the loss is the sum of their squares.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bins = NDArray[np.uint8]

MOST_BINS = 32


class Growth(Struct, frozen=True):
    """How much is learnt."""

    trees: int = 120
    depth: int = 3
    rate: float = 0.06
    ridge: float = 20.0  # added to the rows of a leaf: small ones say little
    share: float = 0.5  # of the rows, and of the columns, that each tree sees
    seed: int = 0


class Trees(Struct, frozen=True):
    """columns, thresholds: [trees, depth]; leaves: [trees, 2^depth, targets]; base: [targets]."""

    columns: NDArray[np.int32]
    thresholds: Floats
    leaves: Floats
    base: Floats

    def predict(self, values: Floats) -> Floats:
        """[n, columns] to [n, targets]"""
        made = np.tile(self.base, (len(values), 1))
        for columns, thresholds, leaves in zip(self.columns, self.thresholds, self.leaves, strict=True):
            made += leaves[_leaf(values[:, columns] > thresholds)]
        return made


def grow(values: Floats, targets: Floats, growth: Growth | None = None) -> Trees:
    """`values` [n, columns], `targets` [n, targets] without gaps; n of at least 1."""
    growth = growth or Growth()
    rng = np.random.default_rng(growth.seed)
    edges = _edges(values)
    bins = np.stack([np.searchsorted(edge, column, side="left") for edge, column in zip(edges, values.T, strict=True)]).astype(np.uint8)
    base = targets.mean(axis=0).astype(np.float32)
    left = (targets - base).astype(np.float64)  # what is still to be explained
    columns = np.zeros((growth.trees, growth.depth), dtype=np.int32)
    thresholds = np.zeros((growth.trees, growth.depth), dtype=np.float32)
    leaves = np.zeros((growth.trees, 2**growth.depth, targets.shape[1]), dtype=np.float32)
    for tree in range(growth.trees):
        rows = np.flatnonzero(rng.random(len(values)) < growth.share) if len(values) > 200 else np.arange(len(values))
        offered = np.flatnonzero(rng.random(len(bins)) < growth.share) if len(bins) > growth.depth else np.arange(len(bins))
        questions = _questions(bins[np.ix_(offered, rows)], left[rows], growth)
        questions = [(int(offered[column]), place) for column, place in questions]
        columns[tree] = [column for column, _ in questions]
        thresholds[tree] = [edges[column][place] if place < len(edges[column]) else np.inf for column, place in questions]
        leaf = _leaf(values[:, columns[tree]] > thresholds[tree])
        counts = np.bincount(leaf[rows], minlength=2**growth.depth)
        for target in range(targets.shape[1]):
            sums = np.bincount(leaf[rows], weights=left[rows, target], minlength=2**growth.depth)
            leaves[tree, :, target] = growth.rate * sums / (counts + growth.ridge)
        left = left - leaves[tree][leaf]
    return Trees(columns, thresholds, leaves, base)


def _questions(bins: Bins, left: Doubles, growth: Growth) -> list[tuple[int, int]]:
    """The column and the bin of each level: greedily those that explain most over all nodes and targets."""
    cells = bins + np.arange(len(bins))[:, None] * MOST_BINS
    weights = [np.tile(target, len(bins)) for target in left.T]
    nodes = np.zeros(bins.shape[1], dtype=np.int64)
    chosen: list[tuple[int, int]] = []
    for level in range(growth.depth):
        shape = (2**level, len(bins), MOST_BINS)
        gains = _gains((cells + nodes * (len(bins) * MOST_BINS)).ravel(), weights, shape, growth.ridge)
        column, place = np.unravel_index(int(np.argmax(gains)), gains.shape)
        chosen.append((int(column), int(place)))
        nodes = nodes * 2 + (bins[column] > place)
    return chosen


def _gains(cells: NDArray[np.int64], weights: list[Doubles], shape: tuple[int, int, int], ridge: float) -> Doubles:
    """[columns, bins]: what is explained when each node is cut after that bin of that column; `shape` is nodes, columns, bins."""
    size = shape[0] * shape[1] * shape[2]
    counts = np.bincount(cells, minlength=size).reshape(shape).cumsum(axis=2)
    below, above = counts + ridge, counts[:, :, -1:] - counts + ridge
    total = np.zeros(shape[1:])
    for target in weights:
        sums = np.bincount(cells, weights=target, minlength=size).reshape(shape).cumsum(axis=2)
        total += (sums**2 / below + (sums[:, :, -1:] - sums) ** 2 / above).sum(axis=0)
    return total


def _edges(values: Floats) -> list[Floats]:
    """Of each column, at most MOST_BINS − 1 values that cut it into parts of like size."""
    at = np.linspace(0, 1, MOST_BINS + 1)[1:-1]
    found = []
    for column in values.T:
        edges = np.unique(np.quantile(column, at, method="lower")).astype(np.float32)
        found.append(edges[edges < column.max()])
    return found


def _leaf(answers: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[n, depth] to the leaf's place, the first question as the highest bit."""
    weights = 2 ** np.arange(answers.shape[1])[::-1]
    return np.asarray(answers @ weights, dtype=np.int64)
