"""How good each model's answer to a prompt will be: what `penstock router train` writes and the policies read.

    features    numbers about the prompt's form, its hashed words, its embedding
    linear      ridge regression on all of them
    trees       boosted oblivious trees on the numbers
    estimate    a mixture of the two, made a probability by Platt's curve, for each model twice: its expected score,
                and the probability that no other model does better

A prompt is out of distribution when it is less like its nearest training prompts than nearly all held-out training prompts were.
The file is safetensors; its digest of the encoder must be that of the vectors it is used with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penstock.core.errors import ConfigError
from penstock.router.boosting import Trees
from penstock.router.features import NUM_HASHED, NUM_NUMBERS, hashed, numbers

Floats = NDArray[np.float32]

FORMAT = "penstock-router-1"  # a change of the features needs another
NUMBERS_WEIGHT = 0.02  # of a standardised number beside rows of length one, so that ridge shrinks all alike
NEAREST = 5  # training prompts that a prompt is compared with
MAKE = "make one with penstock router train"


class Card(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says of itself. `floor` is the least similarity of a prompt that is in distribution."""

    format: str
    models: tuple[str, ...]  # from the cheapest to the dearest
    encoder: str  # its digest; "": no embedding was used
    encoder_name: str
    prompts: int
    table: str  # digest of the rows
    trees_share: float  # of the trees in the mixture
    floor: float


class Linear(Struct, frozen=True):
    """centre, spread: of the numbers; idf: of the hashed words; weights [numbers + words + embedding, targets]; base [targets]."""

    centre: Floats
    spread: Floats
    idf: Floats
    weights: Floats
    base: Floats

    def predict(self, given: Prompts) -> Floats:
        return np.asarray(self.rows(given) @ self.weights + self.base, dtype=np.float32)

    def rows(self, given: Prompts) -> Floats:
        """[n, numbers + words + embedding]"""
        standard = np.clip((given.numbers - self.centre) / self.spread, -4, 4) * np.float32(NUMBERS_WEIGHT)
        words = given.words * self.idf
        words /= np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-9)
        return np.concatenate([standard, words, given.vectors], axis=1, dtype=np.float32)


class Prompts(Struct, frozen=True):
    """numbers [n, NUM_NUMBERS], words [n, NUM_HASHED], vectors [n, dimensions of the encoder, 0 without one]."""

    numbers: Floats
    words: Floats
    vectors: Floats

    def only(self, places: NDArray[Any]) -> Prompts:
        return Prompts(self.numbers[places], self.words[places], self.vectors[places])


class Estimate(Struct, frozen=True):
    """Of some prompts. score, as_good: [n, models]; familiar: [n], whether it is in distribution."""

    score: Floats
    as_good: Floats
    familiar: NDArray[np.bool_]


class Estimator(Struct, frozen=True):
    """platt [2, targets]: slope and intercept; reference [m, dimensions]: training prompts, spread evenly."""

    card: Card
    linear: Linear
    trees: Trees
    platt: Floats
    reference: Floats

    def estimate(self, given: Prompts) -> Estimate:
        raw = mixed(self.linear.predict(given), self.trees.predict(given.numbers), self.card.trees_share)
        likely = platt(raw, self.platt)
        count = len(self.card.models)
        familiar = similarity(given.vectors, self.reference) >= self.card.floor
        return Estimate(likely[:, :count], likely[:, count:], familiar)


def prompts_of(texts: Sequence[str], vectors: Floats) -> Prompts:
    """`vectors` [n, dimensions] of the same texts."""
    return Prompts(numbers(texts), hashed(texts), vectors)


def mixed(linear: Floats, trees: Floats, trees_share: float) -> Floats:
    return np.asarray((1 - trees_share) * linear + trees_share * trees, dtype=np.float32)


def platt(raw: Floats, curve: Floats) -> Floats:
    """σ(slope · raw + intercept) of each target (Platt 1999)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(raw * curve[0] + curve[1], -30, 30))), dtype=np.float32)


def similarity(vectors: Floats, reference: Floats) -> Floats:
    """[n]: mean cosine to the nearest few; 1 where there is nothing to compare with."""
    if not reference.size:
        return np.ones(len(vectors), dtype=np.float32)
    count = min(NEAREST, len(reference))
    cosines = vectors @ reference.T
    nearest = np.partition(cosines, -count, axis=1)[:, -count:]
    return np.asarray(nearest.mean(axis=1), dtype=np.float32)


def save(estimator: Estimator, path: Path) -> None:
    """Write the file. Raises OSError."""
    from safetensors.numpy import save as packed

    linear, trees = estimator.linear, estimator.trees
    tensors = {
        **{f"linear.{name}": getattr(linear, name) for name in linear.__struct_fields__},
        **{f"trees.{name}": getattr(trees, name) for name in trees.__struct_fields__},
        "platt": estimator.platt,
        "reference": estimator.reference.astype(np.float16),
    }
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path.write_bytes(packed(whole, {"penstock": msgspec.json.encode(estimator.card).decode()}))


def load(path: Path) -> Estimator:
    """Raises ConfigError for what is no such file, or one of another version."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            card = msgspec.json.decode((file.metadata() or {}).get("penstock", "{}"), type=Card)
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        linear = Linear(*(found[f"linear.{name}"] for name in Linear.__struct_fields__))
        trees = Trees(*(found[f"trees.{name}"] for name in Trees.__struct_fields__))
        estimator = Estimator(card, linear, trees, found["platt"], found["reference"].astype(np.float32))
    except OSError as error:
        raise ConfigError(f"the classifier {path} cannot be read: {error.strerror or error}", hint=MAKE) from None
    except (SafetensorError, msgspec.DecodeError, KeyError) as error:
        raise ConfigError(f"{path} is no classifier: {error}", hint=MAKE) from None
    fits = len(linear.centre) == NUM_NUMBERS and len(linear.idf) == NUM_HASHED
    if card.format != FORMAT or not fits or estimator.platt.shape != (2, 2 * len(card.models)):
        raise ConfigError(f"{path} is of the format {card.format!r}, this version reads {FORMAT!r}", hint=MAKE)
    return estimator
