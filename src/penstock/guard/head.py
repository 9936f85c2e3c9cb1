"""Linear heads over a text's features: small files of weights, of which `python -m training.guards` makes the shipped ones.

A head's score is the logistic function of its weighted sum, 0 to 1. It ranks; what it means as a probability depends on how rare
attacks are, so a rule objects above a threshold that was set on innocent traffic (see `penstock.guard.calibration`).
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from penstock.core.errors import LoadError
from penstock.guard.features import BUCKETS, Grams

Floats = NDArray[np.float32]

HEADS_FOLDER = Path(__file__).parents[1] / "builtin" / "guards"
BLOCK = 256  # buckets that share a scale


class Head(Struct, frozen=True):
    """`buckets` [BUCKETS] and `dense` are weights. `threshold`: the score above which it objects. `digest`: of the weights."""

    name: str
    buckets: Floats
    dense: Floats
    bias: float
    threshold: float
    digest: str

    def logit(self, grams: Grams, dense: Floats) -> float:
        """The weighted sum of one text."""
        return float(grams.weights @ self.buckets[grams.buckets]) + float(dense @ self.dense) + self.bias

    def score(self, grams: Grams, dense: Floats) -> float:
        """0 to 1; higher is worse."""
        return logistic(self.logit(grams, dense))


def logistic(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    return float(0.5 * (1 + np.tanh(logit / 2)))


@cache
def load_head(name: str, folder: Path = HEADS_FOLDER) -> Head:
    """One of a folder's heads, with the threshold of its card. Raises LoadError."""
    path = folder / f"{name}.safetensors"
    try:
        content = path.read_bytes()
        tensors = load(content)
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        scales = np.repeat(tensors["scales"].astype(np.float32), BLOCK)
        dense = tensors["dense"].astype(np.float32)
        digest = hashlib.sha256(content).hexdigest()[:16]
        head = Head(name, tensors["buckets"] * scales, dense, float(tensors["bias"][0]), float(card[name]["threshold"]), digest)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise LoadError(f"the guard's head {path} cannot be read: {error}", hint="install penstock again") from error
    if head.buckets.shape != (BUCKETS,):
        raise LoadError(f"the guard's head {path} has {len(head.buckets)} buckets, and {BUCKETS} are looked at", hint="train it again")
    return head
