"""A short text read for what embeddings blur: its words, numbers, names, negations, time words and kind of question.

English, by rules and small word lists; nothing is learned here. A text that does not look like English keeps all of its words as
`words`, and `english` is False, so that whoever compares two readings can be strict.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

from msgspec import Struct

from penstock.cache.lexicon import (
    ABBREVIATIONS,
    AMBIGUOUS,
    CODE_NAMES,
    CONTRACTIONS,
    FILLERS,
    IRREGULAR,
    MULTIPLES,
    NEGATIONS,
    NUMBER_WORDS,
    ORDINALS,
    STOPWORDS,
    TIME_WORDS,
    UNITS,
)

LONGEST_NAME = 128  # characters of an identifier; a longer word is none, and would take the square of its length

_TOKEN = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]{0,63}(?:\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,8}\(\)"  # a call: foo.bar()
    r"|c\+\+|[cf]\#|\.net\b"
    r"|(?<![\w.)])-\d+(?:[.,:/]\d+)*|\d+(?:[.,:/]\d+)*(?:st|nd|rd|th)?"
    r"|[^\W_]{1,64}(?:_[^\W_]+)+|[^\W\d_]+(?:['’][^\W\d_]+)*"
    r"|(?:==|!=|<=|>=|&&|\|\||\+\+|--|->|=>|::|<<|>>|[%$€£¥₹°<>=+*/^-])",
    re.IGNORECASE,
)
_OPERATOR = re.compile(r"(?:==|!=|<=|>=|&&|\|\||\+\+|--|->|=>|::|<<|>>)")
_IDENTIFIER = re.compile(r"\w+\(\)$|\w*[a-z]\w*_\w+|[a-z]{2,}[A-Z]\w*")
_NUMBER = re.compile(r"-?\d+(?:[.,:/]\d+)*")
_ROMAN = re.compile(r"(?=[IVX]{2,6}$)(?:X{0,3})(?:IX|IV|V?I{0,3})$")
_LETTERS = re.compile(r"[^\W\d_]+")
_LATIN = re.compile(r"[a-z0-9_'’.+#]+", re.IGNORECASE)
_ROMANS = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12, "XIII": 13, "XIV": 14, "XV": 15}
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee", "%": "percent", "°": "degree"}


class Reading(Struct, frozen=True, kw_only=True):
    """What `read` found. `order` are all words as stems, in the text's order; the sets are made of them."""

    order: tuple[str, ...]
    words: frozenset[str]  # stems that carry meaning: no function words, numbers or negations
    numbers: tuple[str, ...]  # sorted: values with their unit, "1500 km"
    negated: int  # how often
    names: tuple[frozenset[str], ...]  # each run of capitalised words, as stems
    code: frozenset[str]  # identifiers, operators, names of languages
    times: frozenset[str]
    asks: str  # why, who, when, where, how many, how, what, whether, or ""
    english: bool


def read(text: str) -> Reading:
    """Read `text`; some 20 µs for a question of ten words."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'")
    raw = [found.group() for found in _TOKEN.finditer(text)]
    tokens = list(_plain(raw))
    order = tuple(stem(token) for token in tokens)
    numbers, spent = _numbers(raw)
    times = frozenset(token for token in tokens if token in TIME_WORDS)
    code = frozenset(_code(raw))
    words = frozenset(
        stemmed
        for token, stemmed in zip(tokens, order, strict=True)
        if token not in STOPWORDS and token not in NEGATIONS and token not in spent and token[0].isalpha()
    )
    latin = [token for token in tokens if token[0].isalpha()]
    common = sum(1 if token not in AMBIGUOUS else 0.5 for token in latin if token in STOPWORDS)
    return Reading(
        order=order,
        words=words,
        numbers=numbers,
        negated=_negations(tokens),
        names=tuple(_names(text)),
        code=code,
        times=times,
        asks=_asks(tokens),
        english=all(map(str.isascii, latin)) and 5 * common >= len(latin),
    )


def stem(word: str) -> str:
    """The word without its commonest endings. Not a dictionary form: only equal words need come out equal."""
    word = IRREGULAR.get(word, word)
    if len(word) < 4 or not word.isalpha() or not word.isascii():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _plain(raw: list[str]) -> Iterator[str]:
    """Lower case, contractions and abbreviations written out."""
    for token in raw:
        lower = token.lower()
        if "'" in lower:
            whole = CONTRACTIONS.get(lower)
            if whole is None:
                head, _, tail = lower.partition("'")
                whole = f"{head[:-1]} not" if tail == "t" and head.endswith("n") else head
            yield from whole.split()
        elif lower in ABBREVIATIONS:
            yield from ABBREVIATIONS[lower].split()
        else:
            yield lower


def _numbers(raw: list[str]) -> tuple[tuple[str, ...], set[str]]:
    """Values with their units, sorted, and the tokens that they were made of."""
    found: list[str] = []
    spent: set[str] = set()
    at = 0
    while at < len(raw):
        value, used = _value(raw, at)
        if value is None:
            at += 1
            continue
        before = _CURRENCIES.get(raw[at - 1], "") if at else ""
        after = raw[at + used].lower() if at + used < len(raw) else ""
        unit = before or _CURRENCIES.get(after, "") or UNITS.get(after, "")
        if unit and not before:
            spent.add(after)
        found.append(f"{value} {unit}".rstrip())
        spent.update(token.lower() for token in raw[at : at + used])
        at += used
    return tuple(sorted(found)), spent


def _value(raw: list[str], at: int) -> tuple[str | None, int]:
    """The number that begins at `at`, written plainly, and how many tokens it takes."""
    token = raw[at]
    lower = token.lower()
    if token in _ROMANS and _ROMAN.match(token):
        return str(_ROMANS[token]), 1
    if lower in ORDINALS and (lower != "first" or (at and raw[at - 1].lower() == "the")):  # "when did you first"
        return f"{ORDINALS[lower]}", 1
    if lower in NUMBER_WORDS:
        value, used = float(NUMBER_WORDS[lower]), 1
        if value >= 20 and at + 1 < len(raw) and 0 < NUMBER_WORDS.get(raw[at + 1].lower(), 0) < 10:
            value, used = value + NUMBER_WORDS[raw[at + 1].lower()], 2
    elif (digits := _NUMBER.match(token)) is not None:
        plain = digits.group().replace(",", "")
        try:
            value, used = float(plain), 1
        except ValueError:
            return plain, 1  # a date, a ratio, a version
    else:
        return None, 1
    while at + used < len(raw) and raw[at + used].lower() in MULTIPLES:
        value *= MULTIPLES[raw[at + used].lower()]
        used += 1
    if math.isinf(value):  # of more than 308 digits
        return " ".join(raw[at : at + used]), used
    return f"{value:g}" if abs(value) < 1e6 else str(int(value)) if value == int(value) else str(value), used


def _negations(tokens: list[str]) -> int:
    count = sum(token in NEGATIONS for token in tokens)
    for first, second in pairwise(tokens):
        count -= (first, second) in (("or", "not"), ("not", "only"), ("why", "not"))
    return max(count, 0)


def _names(text: str) -> Iterator[frozenset[str]]:
    """Runs of capitalised words that do not begin a sentence; of none if the whole text is capitalised."""
    words = list(re.finditer(r"[^\W\d_][\w'&+#-]*", text))
    capital = [_is_capital(found.group()) for found in words]
    if len(words) > 3 and 2 * sum(capital) > 1.5 * len(words):
        return
    run: list[str] = []
    end = 0
    for place, found in enumerate(words):
        between = text[words[place - 1].end() : found.start()] if place else "."
        begins = not place or between.rstrip(" \"'(“").endswith((".", "?", "!", ":"))
        named = capital[place] and (not begins or _is_odd(found.group()))
        if not named:
            continue
        if run and text[end : found.start()] not in _WITHIN:
            yield frozenset(run)
            run = []
        run += [stem(part.lower()) for part in _LETTERS.findall(found.group().removesuffix("'s")) if len(part) > 1]
        end = found.end()
    if run:
        yield frozenset(run)


def _is_capital(word: str) -> bool:
    return word[0].isupper() and word not in ("I", "A") and not word.startswith(("I'", "I’")) and word.lower() not in FILLERS


def _is_odd(word: str) -> bool:
    """At the beginning of a sentence only these are surely names: NASA, iPhone, McDonald."""
    return len(word) > 1 and any(map(str.isupper, word[1:]))


def _code(raw: list[str]) -> Iterator[str]:
    for token in raw:
        if _OPERATOR.fullmatch(token) or token.lower() in CODE_NAMES:
            yield CODE_NAMES.get(token.lower(), token)
        elif len(token) <= LONGEST_NAME and _IDENTIFIER.match(token) and _LATIN.fullmatch(token.removesuffix("()")):
            yield token.removesuffix("()")


def _asks(tokens: list[str]) -> str:
    """What kind of thing the first question word asks for."""
    for place, token in enumerate(tokens):
        after = tokens[place + 1] if place + 1 < len(tokens) else ""
        if token == "how":
            if after in ("many", "much"):
                return "how many"
            if after in ("long", "often", "old", "far", "big", "tall", "fast", "large", "high", "deep"):
                return f"how {after}"
            return "why" if after == "come" else "how"
        if token in ("why", "who", "when", "where"):
            return token if token != "when" or place < 2 else ""
        if token in ("whom", "whose"):
            return "who"
        if token in ("what", "which"):
            return _WHAT.get(next((stemmed for stemmed in map(stem, tokens[place + 1 : place + 5]) if stemmed in _WHAT), ""), "what")
    first = tokens[0] if tokens else ""
    return "whether" if first in _WHETHER else ""


_WHAT = {"reason": "why", "caus": "why", "purpos": "why", "year": "when", "tim": "when", "dat": "when", "plac": "where", "person": "who"}
_WITHIN = frozenset((" ", " of ", " of the ", " the ", " de ", " & "))  # what a name may have between its words
_WHETHER = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "can",
        "could",
        "should",
        "would",
        "will",
        "has",
        "have",
        "had",
        "may",
        "might",
        "must",
        "am",
    ]
)
