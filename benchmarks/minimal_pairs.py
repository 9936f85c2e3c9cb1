"""Pairs of questions that differ in one thing only, made by rules: negated, renumbered, swapped, and paraphrased.

The first three kinds ask for another answer, the last for the same. They come from templates written here, filled in every way, and from
real questions, to which the same kinds of edit are applied where they make a sentence.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.cache.lexicon import STOPWORDS


@dataclass(frozen=True)
class Pair:
    """Two texts, and whether one answer does for both."""

    kind: str
    source: str  # "template" or "question"
    text_a: str
    text_b: str
    same: bool


ACTIONS = [
    "store batteries in a fridge", "wash a wool coat by hand", "feed bread to ducks", "charge a laptop overnight", "swim after lunch",
    "water roses at noon", "paint over wallpaper", "freeze cooked rice", "park on a steep hill", "mix bleach with vinegar",
    "reuse frying oil", "sleep beside a heater", "prune apple trees in winter", "reply to a spam call",
    "wear contact lenses in the shower",
]  # fmt: skip
COUNTED = [
    "How many calories are in {} eggs?", "What can a family of {} cook for dinner?", "How long does a flight of {} km take?",
    "Which exercises help within {} days?", "What is {} dollars in euros?", "How do I upgrade to version {}?",
    "What happened in Europe in {}?", "How much water should I drink if I weigh {} kg?",
    "Is {} degrees too hot for a puppy?", "What are the best phones under {} euros?",
]  # fmt: skip
NUMBERS = ["3", "4", "12", "15", "40", "45", "1912", "1921", "two", "seven"]
DIRECTED = [
    ("How do I convert {} to {}?", [("metres", "feet"), ("JSON", "YAML"), ("euros", "pounds"), ("a PDF", "a Word file")]),
    ("How long is the train from {} to {}?", [("Oslo", "Bergen"), ("Lyon", "Paris"), ("Kyoto", "Tokyo"), ("Rome", "Naples")]),
    ("Why is {} better than {}?", [("tea", "coffee"), ("walking", "running"), ("steel", "aluminium"), ("wood", "plastic")]),
    ("How do I move from {} to {}?", [("Java", "Kotlin"), ("MySQL", "Postgres"), ("Windows", "Linux"), ("teaching", "nursing")]),
    ("Do {} eat {}?", [("foxes", "owls"), ("sharks", "seals"), ("spiders", "wasps"), ("bears", "wolves")]),
    ("Did {} defeat {}?", [("Sparta", "Athens"), ("Sweden", "Denmark"), ("Carthage", "Rome")]),
    ("Should {} come before {}?", [("salt", "pepper"), ("the primer", "the filler"), ("the moisturiser", "the sunscreen")]),
]  # fmt: skip
NEGATED = [
    ("Is it safe to {}?", "Is it not safe to {}?"), ("Should I {}?", "Should I not {}?"),
    ("Why should you {}?", "Why should you never {}?"),
    ("When can I {}?", "When can I not {}?"), ("What happens if I {}?", "What happens if I don't {}?"),
    ("Why do people {}?", "Why don't people {}?"),
    ("How can I {}?", "How can I avoid having to {}?"), ("Is it legal to {}?", "Is it illegal to {}?"),
]  # fmt: skip
PARAPHRASED = [
    ("How do I {}?", "How can I {}?"), ("Is it safe to {}?", "Is it safe if I {}?"),
    ("What is the best way to {}?", "What's the best way to {}?"),
    ("Should I {}?", "Should I {}"), ("Why do people {}?", "Why do people {} ?"), ("How do I {}?", "how do you {}"),
    ("How do I {}?", "Please tell me how to {}."), ("What happens if I {}?", "What will happen if I {}?"),
]  # fmt: skip


def template_pairs() -> Iterator[Pair]:
    """Every template with every filling, in a fixed order."""
    for (plain, negated), action in itertools.product(NEGATED, ACTIONS):
        yield Pair("negated", "template", plain.format(action), negated.format(action), same=False)
    for template, (one, other) in itertools.product(COUNTED, itertools.combinations(NUMBERS, 2)):
        yield Pair("renumbered", "template", template.format(one), template.format(other), same=False)
    for template, fillings in DIRECTED:
        for one, other in fillings:
            yield Pair("swapped", "template", template.format(one, other), template.format(other, one), same=False)
    for (one, other), action in itertools.product(PARAPHRASED, ACTIONS):
        yield Pair("paraphrased", "template", one.format(action), other.format(action), same=True)


_AUXILIARY = re.compile(
    r"\b((?:do|does|did|can|could|should|would|will|is|are|was|were|has|have|must)\s+"
    r"(?:I|you|we|they|he|she|it|people|there|this|one|women|men|girls|guys))\s+(?!not\b)",
    re.IGNORECASE,
)
_INFINITIVE = re.compile(r"\b(?<!not )to (?=(?:be|do|get|learn|make|use|buy|have|go|eat|start|find|take|read|become|lose|work|study)\b)")
_DIGITS = re.compile(r"(?<![\w.,])\d+(?![\w.,]*\d)")
_FROM_TO = re.compile(
    r"\b(from|convert|transfer|change|switch|move|migrate) ((?:[A-Z]\w+ ?){1,3}|\w+) (to|into) ((?:[A-Z]\w+ ?){1,3}|\w+)\b"
)
_THAN = re.compile(
    r"\b(?:is|are|was|were|do) ((?:[A-Z]\w+ ?){1,3}|\w+) (\w+er|more \w+|less \w+|better|worse) than ((?:[A-Z]\w+ ?){1,3}|\w+)\b"
)


def question_pairs(questions: list[str], seed: int) -> Iterator[Pair]:
    """Edits of real questions, where they fit."""
    rng = random.Random(seed)
    for text in questions:
        if (found := _AUXILIARY.search(text)) is not None:
            yield Pair("negated", "question", text, f"{text[: found.end(1)]} not {text[found.end() :]}", same=False)
        elif (found := _INFINITIVE.search(text)) is not None:
            yield Pair("negated", "question", text, f"{text[: found.start()]}not {text[found.start() :]}", same=False)
        if (found := _DIGITS.search(text)) is not None:
            number = int(found.group())
            other = number + rng.choice([-2, -1, 1, 2, 3, 10]) if number > 12 else number + rng.choice([1, 2, 3])
            yield Pair("renumbered", "question", text, f"{text[: found.start()]}{other}{text[found.end() :]}", same=False)
        for pattern, first, second in ((_FROM_TO, 2, 4), (_THAN, 1, 3)):
            if (found := pattern.search(text)) is not None and _are_two_things(found.group(first), found.group(second)):
                yield Pair("swapped", "question", text, _exchanged(text, found, first, second), same=False)
        if (other_text := _reworded(text, rng)) != text:
            yield Pair("paraphrased", "question", text, other_text, same=True)


def _are_two_things(one: str, other: str) -> bool:
    """Whether they may change places and leave a sentence behind."""
    first, second = set(one.lower().split()), set(other.lower().split())
    return not first & second and not (first | second) & STOPWORDS


def _exchanged(text: str, found: re.Match[str], first: int, second: int) -> str:
    one, other = found.group(first), found.group(second)
    middle = text[found.end(first) : found.start(second)]
    tail = " " if other.endswith(" ") else ""
    return f"{text[: found.start(first)]}{other.rstrip()} {middle.strip()} {one.rstrip()}{tail}{text[found.end(second) :]}"


_REWORDINGS = [
    (re.compile(r"^How do I\b"), ["How can I", "How do you", "how would I"]),
    (re.compile(r"^How can I\b"), ["How do I", "How could I", "how can you"]),
    (re.compile(r"^What is the best way to\b"), ["What's the best way to", "What would be the best way to"]),
    (re.compile(r"^What are the\b"), ["What are some of the", "what are the"]),
    (re.compile(r"^What is\b"), ["What's", "what is", "Can you tell me what is"]),
    (re.compile(r"^Is it\b"), ["is it", "Would it be"]),
    (re.compile(r"^Why do\b"), ["why do", "Why is it that"]),
]


def _reworded(text: str, rng: random.Random) -> str:
    for pattern, others in _REWORDINGS:
        if pattern.search(text):
            return pattern.sub(rng.choice(others), text)
    return text
