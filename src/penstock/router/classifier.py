"""The policy "classifier": the cheapest model that is probably as good as any, by what `penstock router train` learnt.

A prompt that is unlike everything it learnt from goes by the rules instead, and the decision says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from msgspec import Struct

from penstock.core.errors import ConfigError, PenstockError
from penstock.embed import TextVectors
from penstock.router.estimator import MAKE, Estimator, load, prompts_of
from penstock.router.policy import Asked, Choice, Tiers
from penstock.router.rules import tier_of

DEFAULT_QUALITY = 0.9  # where nobody asks for another

log = logging.getLogger(__name__)


class Judged(Struct, frozen=True):
    """Of each model the probability that no other does better. `strange` says why nothing is known; then there are none."""

    as_good: Mapping[str, float] = {}
    strange: str = ""


class Grader:
    """An estimator and the vectors that it reads texts by. Computes in a thread."""

    def __init__(self, estimator: Estimator, vectors: TextVectors | None) -> None:
        self._estimator = estimator
        self._vectors = vectors

    async def grade(self, text: str) -> Judged:
        """Never fails: whatever goes wrong is a reason to know nothing."""
        if not text:
            return Judged(strange="there is no text to read")
        try:
            rows = np.zeros((1, 0), dtype=np.float32) if self._vectors is None else await self._vectors.of([text])
        except PenstockError as error:
            log.warning("a prompt could not be embedded for the router: %s", error)
            return Judged(strange="its embedding failed")
        estimate = await asyncio.to_thread(lambda: self._estimator.estimate(prompts_of([text], rows)))
        if not estimate.familiar[0]:
            return Judged(strange="the prompt is unlike those that the classifier learnt from")
        return Judged(dict(zip(self._estimator.card.models, map(float, estimate.as_good[0]), strict=True)))


class Classifier:
    """Tiers are taken for the order of the prices."""

    name = "classifier"

    def __init__(self, grader: Grader) -> None:
        self._grader = grader

    async def decide(self, asked: Asked) -> Choice:
        judged = await self._grader.grade(asked.text)
        if judged.strange:
            return by_rules(asked, judged.strange)
        quality = DEFAULT_QUALITY if asked.quality is None else asked.quality
        return chosen(asked, judged, asked.tiers.distinct, quality)


def chosen(asked: Asked, judged: Judged, order: tuple[str, ...], quality: float) -> Choice:
    """The first model of `order` that is good enough, else the best."""
    scores = {model: judged.as_good[model] for model in asked.tiers.distinct}
    enough = next((model for model in order if scores[model] >= quality), None)
    model = enough or max(reversed(order), key=lambda model: scores[model])
    told = ", ".join(f"{name!r} {score:.0%}" for name, score in scores.items())
    why = f"{model!r} is the cheapest of at least {quality:.0%}" if enough else f"none reaches {quality:.0%}, {model!r} comes nearest"
    return Choice(model=model, tier=asked.tiers.lowest(model), why=f"{why} (as good as any other: {told})", scores=scores)


def by_rules(asked: Asked, strange: str) -> Choice:
    """What the rules say, where the classifier cannot tell."""
    tier, why = tier_of(asked.request, asked.text, asked.quality)
    return Choice(model=asked.tiers.models[tier], tier=tier, why=f"by rules, since {strange}: {why}")


def open_grader(path: Path, tiers: Tiers, open_vectors: Callable[[], TextVectors] | None) -> Grader:
    """Raises ConfigError where the file does not know a tier's model, or was trained on other vectors."""
    estimator = load(path)
    card = estimator.card
    unknown = next((model for model in tiers.distinct if model not in card.models), None)
    if unknown is not None:
        hint = f"it knows {', '.join(card.models)}: train it on rows of {unknown!r}, too"
        raise ConfigError(f"the classifier {path} does not know the model {unknown!r} of router.tiers", hint=hint)
    if not card.encoder:
        return Grader(estimator, None)
    vectors = None if open_vectors is None else open_vectors()
    if vectors is None or vectors.digest != card.encoder:
        here = "there are none here" if vectors is None else f"here they are of {vectors.name!r}"
        raise ConfigError(f"the classifier {path} reads vectors of {card.encoder_name!r}, {here}", hint=f"set cache.encoder, or {MAKE}")
    return Grader(estimator, vectors)
