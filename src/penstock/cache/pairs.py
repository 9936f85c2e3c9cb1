"""P(the answer to one question answers the other), from two readings and two vectors: logistic regression.

What the cosine alone cannot weigh: which words, names and question words only one side has, how much they matter, and in which directions
of the embedding two questions differ. The weights are of one encoder; `training/pairs.py` makes them, from labelled pairs, each
question of which was looked up among thousands of others.
"""

from __future__ import annotations

import math
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from penstock.cache.reading import Reading
from penstock.core.errors import LoadError

Floats = NDArray[np.float32]

BUCKETS = 2048  # of words, by hash
KINDS = ("why", "who", "when", "where", "how", "how many", "what", "whether", "")


def features(asked: Reading, stored: Reading, cosine: float) -> list[float]:
    """[NUM_FEATURES] what is compared by hand; all near 0 to 1."""
    one, other = asked.words, stored.words
    shared, here, there = len(one & other), len(one - other), len(other - one)
    all_one, all_other = frozenset(asked.order), frozenset(stored.order)
    near = min(max(cosine, 0.0), 0.999999)
    names_one, names_other = frozenset().union(*asked.names), frozenset().union(*stored.names)
    return [
        near,
        -math.log(1 - near) / 4,
        near**8,
        shared / (shared + here + there or 1),
        len(all_one & all_other) / (len(all_one | all_other) or 1),
        here / 4,
        there / 4,
        float(here == 0),
        float(there == 0),
        float(here == 0 and there == 0),
        min(here, there) / 4,
        shared / 4,
        abs(len(asked.order) - len(stored.order)) / 8,
        min(len(asked.order), len(stored.order)) / 16,
        max(len(asked.order), len(stored.order)) / 16,
        float(asked.order == stored.order),
        float(asked.asks == stored.asks),
        float({asked.asks, stored.asks} == {"what", "how"}),
        float("whether" in (asked.asks, stored.asks) and asked.asks != stored.asks),
        float(not asked.asks or not stored.asks),
        float(asked.asks == "whether") * float(stored.asks == "whether"),
        len(names_one - all_other) / 2,
        len(names_other - all_one) / 2,
        len(names_one & names_other) / 2,
        float(bool(asked.numbers)),
        float(asked.order[:1] == stored.order[:1]),
        float(asked.order[-1:] == stored.order[-1:]),
        _ordered(asked.order, stored.order),
    ]


NUM_FEATURES = 28


def _ordered(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """Share of neighbouring words that both have."""
    first, second = set(pairwise(one)), set(pairwise(other))
    return len(first & second) / (len(first | second) or 1)


def buckets(asked: Reading, stored: Reading) -> list[int]:
    """Where the weights are of the words that only one side has."""
    return [zlib.crc32(word.encode()) % BUCKETS for word in frozenset(asked.order) ^ frozenset(stored.order)]


class PairModel:
    """The model of one encoder. Raises LoadError."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        try:
            self._bias = float(weights["bias"][0])
            self._by_hand = weights["by_hand"]  # [NUM_FEATURES]
            self._words = weights["words"]  # [BUCKETS]
            self._apart = weights["apart"]  # [dimensions], of |u - v|
            self._alike = weights["alike"]  # [dimensions], of u · v
        except KeyError as error:
            raise LoadError(f"the weights of the pair model lack {error}", hint="install the package again") from error

    @classmethod
    def load(cls, folder: Path, encoder: str) -> PairModel:
        """The model in `folder` for the vectors of that encoder."""
        path = folder / f"{encoder}.safetensors"
        try:
            return cls(load_file(path))
        except (OSError, SafetensorError) as error:
            raise LoadError(f"{path} cannot be read: {error}", hint="install the package again") from error

    def trust(self, asked: Reading, stored: Reading, one: Floats, other: Floats) -> float:
        """Log-odds that the stored question's answer is right for the one asked. `one`, `other`: their vectors, [dimensions]."""
        alike = one * other
        by_hand = np.array(features(asked, stored, float(alike.sum())), dtype=np.float32)
        return float(
            self._bias
            + by_hand @ self._by_hand
            + np.abs(one - other) @ self._apart
            + alike @ self._alike
            + self._words[buckets(asked, stored)].sum()
        )  # fmt: skip
