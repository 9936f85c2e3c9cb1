"""How much of a sentence is said in the passages that it is to rest on.

Words, numbers and names that the passages do not have are signs of something made up. None of it is understanding: a sentence of
the passages' own words that says the opposite passes. How near an embedding of the sentence is to the passages' was measured as
well and left out: on HaluEval it tells long answers from short ones rather than right from wrong.
"""

from __future__ import annotations

import re

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penstock.guard.contrast import stems

Floats = NDArray[np.float32]

FEATURES: tuple[str, ...] = ("words not there", "numbers not there", "names not there")

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAME = re.compile(r"\b[A-Z][\w'’-]+")
_WORD = re.compile(r"\w+")


class Passages(Struct, frozen=True):
    """What an answer may rest on, and what was asked: the question's words support nothing and contradict nothing."""

    stems: frozenset[str]
    words: frozenset[str]
    numbers: frozenset[str]
    asked: frozenset[str]
    asked_words: frozenset[str]


def passages(context: str, question: str) -> Passages:
    """The words of the passages and of the question, taken apart once."""
    return Passages(
        stems=stems(context),
        words=frozenset(_WORD.findall(context.lower())),
        numbers=frozenset(_NUMBER.findall(context)) | frozenset(_NUMBER.findall(question)),
        asked=stems(question),
        asked_words=frozenset(_WORD.findall(question.lower())),
    )


def lacking(sentence: str, within: Passages) -> Floats:
    """[len(FEATURES)], 0 to 1 each: the share of its words that are not in the passages, and whether a number or a name is not."""
    own = stems(sentence) - within.asked
    numbers = frozenset(_NUMBER.findall(sentence)) - within.numbers
    names = {part for name in _NAME.findall(sentence[1:]) for part in _WORD.findall(name.lower()) if len(part) > 1}
    unknown = names - within.words - within.asked_words
    return np.array((len(own - within.stems) / max(len(own), 1), bool(numbers), bool(unknown)), dtype=np.float32)
