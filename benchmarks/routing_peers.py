"""The usual routers on an embedding, for comparison: each learns from the same prompts as the classifier and is tested on the same.

LR     one logistic regression for each model, on unit vectors, with the usual ridge of 1 (C = 1); the score is how much likelier
       the strong model is right
kNN    mean gain of the 50 training prompts of highest cosine
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Places = NDArray[np.int64]

NEIGHBOURS = 50
RIDGE = 1.0
NEWTON_STEPS = 6


def peers(spaces: Mapping[str, Floats], scores: Floats, train_at: Places, test_at: Places) -> dict[str, Doubles]:
    """What each says of the tested prompts. `spaces`: vectors [n, dimensions] by encoder; `scores` [n, 2]."""
    found: dict[str, Doubles] = {}
    for name, vectors in spaces.items():
        seen, unseen = vectors[train_at], vectors[test_at]
        weak, strong = (logistic(seen, scores[train_at, model], unseen) for model in (0, 1))
        found[f"LR {name}"] = (strong - weak).astype(np.float64)
        found[f"kNN {name}"] = nearest(seen, scores[train_at, 1] - scores[train_at, 0], unseen)
    return found


def logistic(seen: Floats, wanted: Floats, unseen: Floats) -> Floats:
    """Probabilities [len(unseen)], by Newton's steps."""
    rows = np.concatenate([seen, np.ones((len(seen), 1), dtype=np.float32)], axis=1)
    shrink = np.append(np.full(seen.shape[1], RIDGE, dtype=np.float32), np.float32(1e-3))  # the intercept is free
    weights = np.zeros(rows.shape[1], dtype=np.float32)
    for _ in range(NEWTON_STEPS):
        likely = _sigmoid(rows @ weights)
        slope = rows.T @ (likely - wanted) + shrink * weights
        bend = (rows * (likely * (1 - likely))[:, None]).T @ rows + np.diag(shrink)
        weights = weights - np.linalg.solve(bend, slope)
    return _sigmoid(unseen @ weights[:-1] + weights[-1])


def nearest(seen: Floats, gain: Floats, unseen: Floats) -> Doubles:
    cosines = unseen @ seen.T
    count = min(NEIGHBOURS, len(seen))
    places = np.argpartition(cosines, -count, axis=1)[:, -count:]
    return np.asarray(gain[places].mean(axis=1), dtype=np.float64)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), dtype=np.float32)
