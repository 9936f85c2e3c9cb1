"""The nouns of the curriculum: one question with its answer, and the split between training and evaluation.

Every turn carries a ``key`` that names the *item* it asks about (``add:17:25``), not its wording. The split
is a hash of that key, so an item is either always trained on or always held out, whatever the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

Split = Literal["train", "held_out"]
HELD_OUT_SHARE = 20  # one item in this many is never trained on


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message and the answer it deserves. ``result`` is the number a follow-up may refer to."""

    task: str
    user: str
    answer: str
    key: str
    also: tuple[str, ...] = ()
    result: int | None = None


MINI = "penstock-mini"


def called(text: str, name: str) -> str:
    """``text``, which speaks of penstock-mini, as the model called ``name`` would hear or say it."""
    return text.replace(MINI, name)


Make = Callable[[Random], Turn]
Grade = Callable[[Turn, str], bool]


def exact(turn: Turn, reply: str) -> bool:
    """The reply is the answer, or one of the other answers that are as good."""
    return reply.strip() in (turn.answer, *turn.also)


@dataclass(frozen=True, slots=True)
class Task:
    """A family of questions. ``weight`` is its share of training turns relative to the others'."""

    name: str
    weight: float
    make: Make
    grade: Grade = exact


def split_of(key: str) -> Split:
    """Which side of the split the item ``key`` is on, the same on every machine and for every seed."""
    digest = hashlib.sha256(key.encode()).digest()
    return "held_out" if int.from_bytes(digest[:4], "big") % HELD_OUT_SHARE == 0 else "train"


def draw(task: Task, rng: Random, split: Split) -> Turn:
    """A turn of ``task`` whose item lies in ``split``."""
    while True:
        turn = task.make(rng)
        if split_of(turn.key) == split:
            return turn
