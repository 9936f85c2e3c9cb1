"""Turns a template into something a person might type.

Only the fixed words of a template are varied (case, punctuation, politeness, typing errors). What fills its
slots is left as it is, because the answer depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from string import Formatter

OPENERS = (
    "please ",
    "please, ",
    "hey, ",
    "hi, ",
    "hello, ",
    "hi! ",
    "hey ",
    "ok, ",
    "okay, ",
    "so, ",
    "now ",
    "well, ",
    "can you tell me ",
    "could you tell me ",
    "tell me ",
    "tell me, ",
    "i want to know ",
    "quick question: ",
    "i have a question: ",
    "question: ",
    "do you know ",
    "yo ",
    "um, ",
    "please tell me ",
    "and ",
    "then ",
)
CLOSERS = (" please", ", please", " pls", " thanks", ", thank you", " thx", "?", "??", "!", " ?", " ...", " :)", "..")
SHOUT, LOWER, TYPO, OPEN, CLOSE, BARE = 0.02, 0.35, 0.10, 0.14, 0.12, 0.35


def typo(rng: Random, text: str) -> str:
    """``text`` with one slip of the finger inside a longer word: a letter swapped, dropped or doubled."""
    places = [i for i in range(1, len(text) - 2) if text[i - 1 : i + 3].isalpha()]
    if not places:
        return text
    i = rng.choice(places)
    slip = rng.randrange(3)
    if slip == 0:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + text[i + 1 :] if slip == 1 else text[:i] + text[i] + text[i:]


def _literals(rng: Random, template: str) -> list[list[str]]:
    """``template`` as [literal, slot name] pairs, the literals varied together."""
    parts = [[literal, slot or ""] for literal, slot, _, _ in Formatter().parse(template)]
    if rng.random() < LOWER:
        parts = [[literal.lower(), slot] for literal, slot in parts]
    if rng.random() < TYPO:
        at = rng.randrange(len(parts))
        parts[at][0] = typo(rng, parts[at][0])
    return parts


def _frame(rng: Random, text: str) -> str:
    """Words before and after the question itself."""
    if rng.random() < BARE:
        text = text.rstrip("?.!")
    if rng.random() < OPEN:
        text = rng.choice(OPENERS) + (text[:1].lower() + text[1:])
    if rng.random() < CLOSE:
        text = text.rstrip("?.!") + rng.choice(CLOSERS)
    if rng.random() < 0.15:
        text = text[:1].upper() + text[1:]
    return text


def ask(rng: Random, template: str, slots: Mapping[str, object] | None = None) -> str:
    """The template filled with ``slots`` and worded the way one of many people would."""
    slots = slots or {}
    if rng.random() < 0.3:
        return template.format_map(slots)
    parts = _literals(rng, template)
    text = _frame(rng, "".join(literal + (str(slots[slot]) if slot else "") for literal, slot in parts))
    return text.upper() if not slots and rng.random() < SHOUT else text


def casual(rng: Random, name: str) -> str:
    """A proper name as typed: mostly as it should be, sometimes in small letters or capitals."""
    draw = rng.random()
    return name.lower() if draw < 0.3 else name.upper() if draw < 0.03 + 0.3 else name


def listing(words: list[str], last: str = "and") -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
