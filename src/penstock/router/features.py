"""What a classifier reads of a prompt besides its embedding: 64 numbers about its form, and its words by hash.

The numbers are about what makes a question hard rather than what it is about: how long question and options are, whether they are
numbers, negations, formulas, computation, cases, statements to weigh. Words and pairs of words are hashed with a sign (Weinberger et
al. 2009) and weighed by 1 + log(count); every text's row has length one. Times are linear in the text, of which 8,192 characters are read.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LOOKED_AT = 8192  # characters
MOST_WORDS = 1024
NUM_HASHED = 2048

_WORD = re.compile(r"[^\W\d_]+")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_OPTION = re.compile(r"\n\(?[A-J][.)] ")
_ANSWER = re.compile(r"\n\s*Answer:\s*$")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_NAME = re.compile(r"[a-z,] [A-Z][a-z]")
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"\d+")
_SYMBOL = re.compile(r"[=+*/^<>\\{}|∪∩→~≡∨∧⊃•≤≥√∑∫]")
_NEGATION = re.compile(r"\b(?:not|except|least|never|false|incorrect|cannot|unlikely|[a-z]{2,8}n't)\b", re.IGNORECASE)

# Each is looked for in the question; "options" in what is to choose from, "all" in both.
_MARKS: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (name, where, re.compile(pattern, 0 if name == "loud negation" else re.IGNORECASE))
    for name, where, pattern in (
        ("loud negation", "question", r"\b(?:NOT|EXCEPT|LEAST|FALSE)\b"),
        ("which", "question", r"^\s*which\b"),
        ("what", "question", r"^\s*what\b"),
        ("how", "question", r"^\s*how\b"),
        ("why", "question", r"\bwhy\b"),
        ("who", "question", r"\bwho(?:se|m)?\b"),
        ("when", "question", r"\bwhen\b|\bwhat year\b"),
        ("where", "question", r"\bwhere\b"),
        ("amount", "question", r"\bhow (?:many|much|long|far|fast|old)\b"),
        ("compute", "question", r"\b(?:calculate|compute|find|determine|solve|evaluate|estimate|simplify|probability)\b"),
        ("following", "question", r"\bfollowing\b"),
        ("best", "question", r"\b(?:best|most|primarily|mainly)\b"),
        ("given", "question", r"\b(?:suppose|assume|let|given|if)\b"),
        ("passage", "question", r"\b(?:refers|passage|excerpt|paragraph|text below)\b"),
        ("statements", "question", r"\bstatements?\b|\bscenario\b"),
        ("case", "question", r"\b(?:year-old|man|woman|patient|plaintiff|defendant|company|student|employee)\b"),
        ("law", "question", r"\b(?:court|statute|defendant|plaintiff|contract|liable|negligence|amendment|evidence|treaty)\b"),
        ("medicine", "question", r"\b(?:patient|symptoms?|disease|treatment|syndrome|blood|clinical|physician|cells?)\b"),
        ("programs", "all", r"\b(?:algorithm|python|program|code|function|array|binary|memory|class|return|sql)\b"),
        ("maths", "all", r"\b(?:integral|derivative|polynomial|matrix|prime|group|ring|field|equation|vector|graph|triangle|product)\b"),
        ("logic", "all", r"\b(?:argument|fallacy|premise|proposition|predicate|valid|tautolog\w{1,8}|logical)\b"),
        ("economy", "question", r"\b(?:price|demand|supply|market|tax|interest|inflation|cost|revenue|profit)\b"),
        ("year", "question", r"\b1[5-9]\d\d\b|\b20[0-3]\d\b"),
        ("theory", "question", r"\b(?:according to|argues?|claims?|theory|theories)\b"),
        ("writing", "question", r"\b(?:write|essay|story|poem|email|summari[sz]e|rewrite|translate|draft)\b"),
        ("quotation", "question", r"[\"“‘]"),
        ("blank", "question", r"_"),
        ("asks", "question", r"\?"),
        ("open end", "question", r":\s*$|\w\s*$"),
        ("all or none", "options", r"\b(?:all|none|both|neither|either) (?:of )?(?:the|these|a|b|i)\b|\bneither\b"),
        ("only", "options", r"\bonly\b"),
        ("true or false", "options", r"\b(?:true|false|wrong|not wrong)\b"),
    )
)  # fmt: skip


def numbers(texts: Sequence[str]) -> Floats:
    """[len(texts), NUM_NUMBERS]"""
    return np.array([list(_numbers(text[:LOOKED_AT])) for text in texts], dtype=np.float32).reshape(len(texts), NUM_NUMBERS)


def hashed(texts: Sequence[str]) -> Floats:
    """[len(texts), NUM_HASHED], each row of length one; all zeros for a text without words."""
    rows = np.zeros((len(texts), NUM_HASHED), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for term, count in Counter(_terms(text)).items():
            code = zlib.crc32(term.encode("utf-8", "replace"))
            row[code % NUM_HASHED] += (1.0 if code & 0x4000_0000 else -1.0) * (1.0 + math.log(count))
        row /= max(float(np.linalg.norm(row)), 1e-9)
    return rows


def _terms(text: str) -> Iterator[str]:
    words = [match.group().lower() for match, _ in zip(_TOKEN.finditer(text[:LOOKED_AT]), range(MOST_WORDS), strict=False)]
    yield from words
    yield from map(" ".join, pairwise(words))


def _numbers(text: str) -> Iterator[float]:
    question, *options = _OPTION.split(_ANSWER.sub("", text))
    choices = "\n".join(options)
    places = {"question": question, "options": choices, "all": text}
    yield from _sizes(question, options, text)
    yield from _words(question, options)
    yield from _figures(question, choices, options)
    yield float(bool(_NEGATION.search(question)))
    yield float(len(_NEGATION.findall(choices)))
    yield from (float(bool(pattern.search(places[where]))) for _, where, pattern in _MARKS)


def _sizes(question: str, options: Sequence[str], text: str) -> Iterator[float]:
    lengths = [len(option) for option in options] or [0]
    mean = sum(lengths) / len(lengths)
    sentences, lines = len(_SENTENCE.findall(question)), question.count("\n")
    yield from map(math.log1p, (len(text), len(question), mean, min(lengths), max(lengths), sentences, lines))
    yield (max(lengths) - min(lengths)) / (1 + mean)
    yield float(len(options))


def _words(question: str, options: Sequence[str]) -> Iterator[float]:
    words = [word.lower() for word in _WORD.findall(question)]
    chosen = [[word.lower() for word in _WORD.findall(option)] for option in options]
    lengths, theirs = [len(word) for word in words], [len(word) for option in chosen for word in option]
    names = len(_NAME.findall(question))
    seen, offered = set(words), {word for option in chosen for word in option}
    yield math.log1p(len(words))
    yield _mean(lengths)
    yield float(max(lengths, default=0))
    yield sum(length >= 9 for length in lengths) / (1 + len(words))
    yield _mean(theirs)
    yield math.log1p(names)
    yield names / (1 + len(words))
    yield len(seen) / (1 + len(words))
    yield len(seen & offered) / (1 + len(offered))
    yield _overlap([set(option) for option in chosen[:10]])
    yield _mean(len(option) <= 1 for option in chosen)


def _figures(question: str, choices: str, options: Sequence[str]) -> Iterator[float]:
    digits, symbols, offered = len(_DIGIT.findall(question)), len(_SYMBOL.findall(question)), len(_SYMBOL.findall(choices))
    size = 1 + len(question) + len(choices)
    yield from map(math.log1p, (digits, len(_NUMBER.findall(question)), symbols, offered, len(_DIGIT.findall(choices))))
    yield digits / (1 + len(question))
    yield (symbols + offered) / size
    yield _mean(bool(_DIGIT.search(option)) for option in options)
    yield _mean(bool(_DIGIT.search(option)) and sum(map(len, _WORD.findall(option))) <= 4 for option in options)
    yield sum(char > "\x7f" for char in question + choices) / size


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def _overlap(sets: Sequence[set[str]]) -> float:
    """Mean Jaccard similarity of each two."""
    return _mean(len(a & b) / (1 + len(a | b)) for place, a in enumerate(sets) for b in sets[place + 1 :])


NUM_NUMBERS = len(list(_numbers("")))
