"""The rule `injection`: jailbreaks and prompt injections, in what is asked and in what tools returned.

Two linear heads judge two situations. The head "input" sees a whole prompt, and where the operator's system prompt forbids
something, whether the prompt asks for it. The head "tools" sees each statement of what a tool returned, in the middle of the
others: there an order to the assistant, or a question that has nothing to do with the rest, is out of place.

Prior work: PIGuard (Li and Liu, 2024) for the traps that such a rule must not fall into, BIPIA (Yi et al., 2023) for attacks
within documents. What it misses is in docs/guardrails.md.
"""

from __future__ import annotations

import asyncio
from functools import cache, lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError, LoadError
from penstock.embed.static import STATIC_FOLDER, StaticTable
from penstock.guard.calibration import thresholds
from penstock.guard.contrast import MOST_SYSTEMS, against_document, against_system, asked, forbidden, near_document, near_system
from penstock.guard.features import COUNTS, counts, grams
from penstock.guard.head import Head, load_head, logistic
from penstock.guard.rule import Means, Opinion, Reads, Span, Text
from penstock.guard.statements import statements

Floats = NDArray[np.float32]

INLINE_CHARS = 1500  # a text up to this long is judged at once, a longer one in a thread
WINDOW = 4000  # characters: a longer prompt is judged also in windows of that size, which overlap by half
MOST_STATEMENTS = 400  # of a document
MOST_PASTED = 24  # statements of a prompt that are judged as if a tool had returned them
ORDERLY = tuple(COUNTS.index(name) for name in ("asks", "orders", "question", "change the reply", "you", "must"))
NOT_PASTED = -6.0  # the logit of what nobody pasted


class Statement(Struct, frozen=True):
    """A stretch of a document and how much it looks like an attack."""

    start: int
    end: int
    logit: float


class Heads(Struct, frozen=True):
    """Both heads, and the threshold of each in the place where it judges."""

    input: Head
    tools: Head
    input_threshold: float
    tools_threshold: float


@cache
def encoder() -> StaticTable:
    """The table of vectors that ships: the heads were trained on it, whatever the cache and the router embed with."""
    return StaticTable(STATIC_FOLDER)


def read_document(text: str, tools: Head) -> list[Statement]:
    """Each statement of what a tool returned."""
    found = statements(text)[:MOST_STATEMENTS]
    texts = [text[start:end] for start, end in found]
    dense = tool_features(texts, table=text.count("|") > 8)
    return [Statement(start, end, tools.logit(grams(one), row)) for (start, end), one, row in zip(found, texts, dense, strict=True)]


def tool_features(texts: list[str], *, table: bool) -> Floats:
    """[statements, features]: of each, what it says, where it stands, and both together: an order is worse among strangers."""
    said = np.array([counts(text) for text in texts], dtype=np.float32).reshape(len(texts), len(COUNTS))
    stands = against_document(texts, table)
    vectors = encoder().encode(texts)
    near = near_document(vectors)
    strange, alone, far = 1 - stands[:, 5:6], stands[:, 1:2], 1 - near[:, :1]
    orders = said[:, ORDERLY]
    return np.concatenate((said, stands, near, orders * strange, orders * alone, orders * far, vectors), axis=1)


def input_features(text: str, system: str, pasted: float) -> Floats:
    """[features] of a prompt: what it says, what its system prompt has to do with it, and the worst statement pasted into it."""
    keeping, told = _vectors_of(system)
    asking = encoder().encode([text, *asked(text)])
    near = near_system(asking, keeping, told)
    if not system:
        near = np.zeros_like(near)
    return np.concatenate((counts(text), against_system(text, system), near, np.array([np.tanh(pasted / 4)], np.float32), asking[0]))


@lru_cache(maxsize=MOST_SYSTEMS)
def _vectors_of(system: str) -> tuple[Floats, Floats]:
    """Of what a system prompt forbids [m, d], and of all of it [d]."""
    vectors = encoder().encode([*forbidden(system), system])
    return vectors[:-1], vectors[-1]


def worst_pasted(text: str, tools: Head) -> float:
    """The highest logit among the statements that follow a prompt's first, where the prompt seems to quote something."""
    found = statements(text)
    if len(found) < 2 or not any(mark in text for mark in ("'", '"', "<", ":", "```", "|", "\n")):
        return NOT_PASTED
    after = found[1:]
    if len(after) > MOST_PASTED:
        after = [*after[: MOST_PASTED // 2], *after[-MOST_PASTED // 2 :]]
    texts = [text[start:end] for start, end in after]
    dense = tool_features(texts, table=text.count("|") > 8)
    return max(tools.logit(grams(one), row) for one, row in zip(texts, dense, strict=True))


def read_prompt(text: str, system: str, heads: Heads) -> float:
    """How much a prompt looks like an attack, 0 to 1: the worst of the whole and of its windows."""
    windows = [text]
    if len(text) > WINDOW:
        windows += [text[start : start + WINDOW] for start in range(0, len(text) - WINDOW // 2, WINDOW // 2)]
    pasted = worst_pasted(text, heads.tools)
    return max(heads.input.score(grams(window), input_features(window, system, pasted)) for window in windows)


class Injection:
    """Objects to prompts as a whole, and to the statements of what a tool returned one by one."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self.reads = Reads(where=("input", "tools"), roles=("user", "tool"), parts=("text",), unit="whole")

    async def judge(self, text: Text) -> Opinion:
        if len(text.text) + len(text.system) <= INLINE_CHARS:
            return self._judge(text)
        return await asyncio.to_thread(self._judge, text)

    def _judge(self, text: Text) -> Opinion:
        if text.where == "tools":
            return self._document(text)
        score = read_prompt(text.text, text.system, self._heads)
        if score <= self._heads.input_threshold:
            return Opinion(score=score)
        return Opinion(why="the prompt looks like a jailbreak or an injection", score=score)

    def _document(self, text: Text) -> Opinion:
        found = read_document(text.text, self._heads.tools)
        score = max((logistic(statement.logit) for statement in found), default=0.0)
        over = [one for one in found if logistic(one.logit) > self._heads.tools_threshold and one.end > text.start]
        spans = tuple(Span(max(one.start, text.start), one.end, "INSTRUCTION") for one in over)
        return Opinion(why="the tool's result gives instructions" if spans else "", score=score, spans=spans)


def injection(settings: RuleSettings, means: Means) -> Injection:
    """The rule as the settings have it. Raises ConfigError, LoadError."""
    if "output" in settings.on:
        raise ConfigError("the rule 'injection' reads no output", hint='its `on` is "input", "tools" or both')
    heads = load_head("input"), load_head("tools")
    widths = len(input_features("", "", 0.0)), tool_features(["a"], table=False).shape[1]  # and the encoder is loaded
    for head, width in zip(heads, widths, strict=True):
        if len(head.dense) != width:
            raise LoadError(
                f"the guard's head {head.name!r} weighs {len(head.dense)} features, and there are {width}", hint="train it again"
            )
    limits = thresholds(settings, heads)
    return Injection(Heads(heads[0], heads[1], limits["input"], limits["tools"]))
