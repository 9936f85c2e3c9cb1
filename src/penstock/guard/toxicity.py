"""The rule `toxicity`: hateful, harassing, sexual and violent text, in what is asked and what is answered.

One linear head over n-grams. It knows words and phrases, and so it is weak where meaning turns on context: a slur that is
quoted to object to it, hate without a bad word. What it finds of each kind is in docs/guardrails.md.
"""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from penstock.core.config import RuleSettings
from penstock.guard.calibration import thresholds
from penstock.guard.features import counts, grams
from penstock.guard.head import Head, load_head
from penstock.guard.injection import encoder
from penstock.guard.rule import Means, Opinion, Reads, Text

Floats = NDArray[np.float32]

INLINE_CHARS = 2000  # a text up to this long is judged at once, a longer one in a thread


def toxicity_of(text: str, head: Head) -> float:
    """0 to 1; higher is worse."""
    return head.score(grams(text), toxicity_features(text))


def toxicity_features(text: str) -> Floats:
    """[features]: how a text is written, and what it is about."""
    return np.concatenate((counts(text), encoder().encode([text])[0]))


class Toxicity:
    """Objects to prompts as a whole and to answers sentence by sentence."""

    def __init__(self, head: Head, threshold: float) -> None:
        self._head = head
        self._threshold = threshold
        self.reads = Reads(where=("output",), roles=("user", "tool", "assistant"), parts=("text", "reasoning"), unit="sentence")

    async def judge(self, text: Text) -> Opinion:
        new = text.text[text.start :]
        score = toxicity_of(new, self._head) if len(new) <= INLINE_CHARS else await asyncio.to_thread(toxicity_of, new, self._head)
        return Opinion(why="the text looks hateful, sexual or violent" if score > self._threshold else "", score=score)


def toxicity(settings: RuleSettings, means: Means) -> Toxicity:
    """The rule as the settings have it. Raises ConfigError, LoadError."""
    head = load_head("toxicity")
    return Toxicity(head, thresholds(settings, [head])["toxicity"])
