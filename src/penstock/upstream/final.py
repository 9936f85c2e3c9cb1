r"""The final answer inside a longer one, in a form in which two that mean the same are the same text.

It is what a `\boxed{…}`, a line of `####`, "the answer is …" or "Answer: …" names; else what follows the last "=" of the last line;
else the only number near that line's end, unless the line says yes or no; else the line itself. Numbers are compared by value, words
without case, articles, punctuation and emphasis. (The conventions are those of GSM8K and MATH, and of the graders written for them.)
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_LOOKED_AT = 4_096  # characters at an answer's end
_MARKED = re.compile(r"####[ \t]*([^\n]+)|\b(?:final answer|answer)\b(?:\*\*)?[ \t]*(?:is|:|=)[ \t:]*([^\n]+)", re.IGNORECASE)
_BOXED = "\\boxed{"
_NUMBER = re.compile(r"[-−+]?(?:[$€£] ?)?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-−+]?\.\d+")
_POLAR = re.compile(r"\b(?:yes|no|not|true|false|never|none|n't)\b", re.IGNORECASE)
_WORDS = re.compile(r"[^\W_]+(?:['’.][^\W_]+)*|[-+*/^=<>%]")
_EMPHASIS = re.compile(r"\*\*|__|`")
_ARTICLES = frozenset(("a", "an", "the"))
_LATE_WORDS = 2  # that may follow a number which ends a line: "18 red apples"


def final_answer(text: str) -> str:
    """The normalised final answer; "" where there is none."""
    text = text[-_LOOKED_AT:].strip()
    named = _boxed(text) or _marked(text)
    if named:
        return _normalised(named)
    line = text.rsplit("\n", 1)[-1]
    if "=" in line:
        line = line.rsplit("=", 1)[-1]
        numbers = list(_NUMBER.finditer(line))
        return _number(numbers[0]) if len(numbers) == 1 else _normalised(line)
    numbers = list(_NUMBER.finditer(line))
    if len(numbers) == 1 and not _POLAR.search(line) and len(line[numbers[0].end() :].split()) <= _LATE_WORDS:
        return _number(numbers[0])
    return _normalised(line)


def _boxed(text: str) -> str:
    """What the last box holds, its own braces balanced."""
    start = text.rfind(_BOXED)
    if start < 0:
        return ""
    depth, begin = 1, start + len(_BOXED)
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return ""


def _marked(text: str) -> str:
    """What the last marker names."""
    named = list(_MARKED.finditer(text))
    return next(filter(None, named[-1].groups()), "") if named else ""


def _normalised(text: str) -> str:
    text = _EMPHASIS.sub("", text).strip().strip("$. ")
    number = _NUMBER.fullmatch(text.rstrip("%"))
    if number:
        return _number(number)
    words = _WORDS.findall(_NUMBER.sub(_number, text).casefold())
    return " ".join(word for word in words if word not in _ARTICLES)


def _number(found: re.Match[str]) -> str:
    """By value: "1,234.50" and "$1234.5" are one."""
    plain = re.sub(r"[$€£, ]", "", found[0].replace("−", "-"))
    try:
        return format(Decimal(plain).normalize() + 0, "f")
    except InvalidOperation:
        return plain
