"""Whether two answers say the same, by which a trial of the semantic cache is marked right or wrong.

A trial compares the stored answer with the one that the model has just given. The mark decides what is served later, so doubt counts
as "no": answers agree when they are the same text but for case, spaces and punctuation; when both are short and the same words; or when
their numbers are the same, no rule of `verify` finds their openings apart, and their vectors lie close. Where two answers differ in
length by more than a factor of three, one says more than the other, and they do not agree.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from penstock.cache.reading import Reading, read
from penstock.cache.verify import found

Floats = NDArray[np.float32]

LIKE = 0.85  # cosine of two answers that say the same
SHORT_WORDS = 6
OPENING_CHARS = 300  # the part of an answer that says it; what follows explains
_LEAD = re.compile(
    r"\s*(?:so,?\s+|therefore,?\s+)?(?:the\s+(?:final\s+|correct\s+)?answer\s+is|it\s+is|it['’]s|that\s+is)\b\s*:?\s*", re.IGNORECASE
)
_PLAIN = re.compile(r"[^\w%$€£+\-*/=<>.]+|(?<!\d)\.|\.(?!\d)")
_YES = frozenset(("yes", "yeah", "yep", "correct", "true", "right", "indeed", "certainly"))
_NO = frozenset(("no", "nope", "incorrect", "false", "wrong", "not"))


def same_answer(a: str, b: str, vectors: Floats | None) -> bool:
    """Whether two answers say the same. `vectors` are their two embeddings, [2, dimensions], of unit length; None: not at hand."""
    a, b = _said(a), _said(b)
    one, other = _plain(a), _plain(b)
    if one == other:
        return bool(one)
    if not one or not other or _verdict(one) != _verdict(other):
        return False
    first, second = read(a[:OPENING_CHARS]), read(b[:OPENING_CHARS])
    if _is_short(one) or _is_short(other):
        return _same_words(first, second)
    if vectors is None or not 1 / 3 < len(one) / len(other) < 3:
        return False
    if read(a).numbers != read(b).numbers:
        return False
    return float(vectors[0] @ vectors[1]) >= LIKE and not any(_weighs(reason) for reason in found(first, second))


def _said(text: str) -> str:
    """Without "the answer is"."""
    lead = _LEAD.match(text)
    return text[lead.end() :] if lead is not None else text


def _plain(text: str) -> str:
    return " ".join(_PLAIN.sub(" ", text.lower()).split())


def _verdict(plain: str) -> bool | None:
    """What a yes-or-no answer begins with."""
    first = plain.split(" ", 1)[0]
    return True if first in _YES else False if first in _NO else None


def _is_short(plain: str) -> bool:
    return plain.count(" ") < SHORT_WORDS


def _same_words(one: Reading, other: Reading) -> bool:
    """Two short answers: the same words that carry meaning, in whatever sentence ("Paris." and "It is Paris.")."""
    same = one.words == other.words and one.numbers == other.numbers and one.negated % 2 == other.negated % 2
    return same and bool(one.words or one.numbers) and not any(found(one, other))


def _weighs(reason: str) -> bool:
    """An answer may use other question words, and name what the other leaves out; the rest turns it round."""
    return reason.startswith(("number", "negation", "opposite", "order", "words"))
