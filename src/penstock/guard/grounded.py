"""The rule `grounded`: each sentence of an answer against the passages that the request gives.

Passages are what the system prompt and tools say, and a question that is long enough to hold a text itself. Without any, there is
nothing to judge. The weights of the signs (see `support`) were fitted on HaluEval's answers (Li et al., 2023).
"""

from __future__ import annotations

import json
from functools import cache

import msgspec
import numpy as np
from msgspec import Struct

from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError, LoadError
from penstock.core.types import Request
from penstock.guard.head import HEADS_FOLDER, logistic
from penstock.guard.rule import Means, Opinion, Reads, Text
from penstock.guard.sentences import sentences
from penstock.guard.support import Passages, lacking, passages

LONG_QUESTION = 400  # characters from which a question is taken to hold a text of its own
SHORTEST = 2  # words of a sentence that can be wrong


class Weights(Struct, frozen=True):
    """Of `support.FEATURES`, and the score above which a sentence is taken to be made up."""

    weights: list[float]
    bias: float
    threshold: float


def unsupported(sentence: str, within: Passages, weights: Weights) -> float:
    """0 to 1: how much of a sentence the passages do not bear out."""
    return logistic(float(lacking(sentence, within) @ np.array(weights.weights)) + weights.bias)


class Grounded:
    """Objects to sentences that say what no passage says."""

    def __init__(self, weights: Weights, threshold: float) -> None:
        self._weights = weights
        self._threshold = threshold
        self.reads = Reads(where=("output",), roles=("assistant",), parts=("text",), unit="sentence", decodes=False, cuts=False)

    async def judge(self, text: Text) -> Opinion:
        within = given(text.request) if text.request is not None else None
        if within is None:
            return Opinion()
        worst = 0.0
        for start, end in sentences(text.text, text.start):
            if len(text.text[start:end].split()) >= SHORTEST:
                worst = max(worst, unsupported(text.text[start:end].strip(), within, self._weights))
        return Opinion(why="it says what no passage says" if worst > self._threshold else "", score=worst)


def given(request: Request) -> Passages | None:
    """What a request gives an answer to rest on; None: nothing."""
    messages = request.messages or ()
    context = [message.content for message in messages if message.role in ("system", "developer", "tool") and message.content]
    asked = [message.content for message in messages if message.role == "user"]
    context += [text for text in asked if len(text) >= LONG_QUESTION]
    return passages("\n".join(context), asked[-1] if asked and len(asked[-1]) < LONG_QUESTION else "") if context else None


@cache
def load_weights() -> Weights:
    """The shipped ones. Raises LoadError."""
    path = HEADS_FOLDER / "card.json"
    try:
        return msgspec.convert(json.loads(path.read_text(encoding="utf-8"))["grounded"], Weights)
    except (OSError, KeyError, ValueError) as error:
        raise LoadError(f"the guard's weights {path} cannot be read: {error}", hint="install penstock again") from error


def grounded(settings: RuleSettings, means: Means) -> Grounded:
    """The rule as the settings have it. Raises ConfigError, LoadError."""
    if settings.calibration:
        raise ConfigError("the rule 'grounded' takes no calibration", hint="set its `threshold`, 0 to 1, after a `dry_run`")
    weights = load_weights()
    return Grounded(weights, weights.threshold if settings.threshold is None else settings.threshold)
