"""What embeddings miss: reasons why two questions that lie close together are not the same question.

A sentence embedding hardly moves when a "not" is added, a number changed or two roles exchanged. Here both texts are read by rules
(`reading`), and each rule that finds them apart says so in a few words. Deterministic; some 60 µs for two questions of ten words.

The rules are for English. Where a text does not look like English, or is written in another script, any word that only one side has
counts as a difference.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.cache.lexicon import OPPOSITES, PREFIXES, STOPWORDS, SYMMETRIC
from penstock.cache.reading import Reading, read, stem

REACH = 3  # words to either side of a connecting word that are its arguments
_OPPOSITES = frozenset(frozenset(map(stem, row)) for row in OPPOSITES)
_OPPOSED: dict[str, frozenset[str]] = {
    word: frozenset(other for pair in _OPPOSITES if word in pair for other in pair if other != word) for pair in _OPPOSITES for word in pair
}
_STOPS = frozenset(map(stem, STOPWORDS))
_LOOSE = frozenset(("what", "how", "whether", ""))


def differences(asked: str, stored: str) -> tuple[str, ...]:
    """Why the answer to `stored` may not answer `asked`, a few words for each reason; empty if no rule found any."""
    return tuple(found(read(asked), read(stored)))


def found(asked: Reading, stored: Reading) -> Iterator[str]:
    """The same for texts that were read already."""
    if asked.numbers != stored.numbers:
        yield f"number: {', '.join(asked.numbers) or 'none'} | {', '.join(stored.numbers) or 'none'}"
    if asked.negated % 2 != stored.negated % 2:
        yield "negation"
    if asked.times != stored.times:
        yield f"time: {', '.join(sorted(asked.times ^ stored.times))}"
    if asked.code != stored.code:
        yield f"code: {', '.join(sorted(asked.code ^ stored.code))}"
    yield from _polarity(asked, stored)
    yield from _names(asked, stored)
    if _asks_other(asked.asks, stored.asks):
        yield f"question: {asked.asks} | {stored.asks}"
    if swapped := _swapped(asked, stored):
        yield f"order: around {swapped}"
    if not (asked.english and stored.english) and asked.words != stored.words:
        yield f"words: {', '.join(sorted(asked.words ^ stored.words)[:4])}"


def _polarity(asked: Reading, stored: Reading) -> Iterator[str]:
    one, other = frozenset(asked.order), frozenset(stored.order)
    here, there = one - other, other - one
    for word in sorted(here):
        if opposed := _OPPOSED.get(word, frozenset()) & there:
            yield f"opposite: {word} | {min(opposed)}"
        for prefix in PREFIXES:
            if len(word) > 3 and prefix + word in there:
                yield f"opposite: {word} | {prefix}{word}"
            if len(word) > 3 + len(prefix) and word.startswith(prefix) and word.removeprefix(prefix) in there:
                yield f"opposite: {word} | {word.removeprefix(prefix)}"


def _names(asked: Reading, stored: Reading) -> Iterator[str]:
    """Names of one side of which the other side has no word."""
    for name, other in [(name, stored) for name in asked.names] + [(name, asked) for name in stored.names]:
        if name not in other.names and not name & set(other.order) and not _initials(name, other):
            yield f"name: {' '.join(sorted(name))}"


def _initials(name: frozenset[str], other: Reading) -> bool:
    """Whether a name is the other side's initials, or has them: USA, United States of America."""
    if len(name) == 1:
        (word,) = name
        return any(sorted(word[: len(run)]) == sorted(part[0] for part in run) for run in other.names if len(run) > 1)
    return any(len(run) == 1 and sorted(next(iter(run))[: len(name)]) == sorted(part[0] for part in name) for run in other.names)


def _asks_other(one: str, other: str) -> bool:
    """Only where both are sure of what they want: "what is the way to" asks what "how do I" asks, "is there a shop" what "where" asks."""
    return (one != other and one not in _LOOSE and other not in _LOOSE) or {one, other} == {"why", "how"}


def _swapped(asked: Reading, stored: Reading) -> str:
    """A word of both texts whose neighbours to the left and right have changed places; "" if there is none.

    "from A to B" and "from B to A" have the same words; so have "dogs chase cats" and "cats chase dogs".
    """
    if len(asked.words ^ stored.words) > max(2, len(asked.words & stored.words)) or ("by" in asked.order) != ("by" in stored.order):
        return ""
    places, others = _places(asked.order), _places(stored.order)
    for word in places.keys() & others.keys():
        for place, there in zip(places[word], others[word], strict=False):
            left, right = _around(asked.order, place)
            if not left or not right:
                continue
            other_left, other_right = _around(stored.order, there)
            if (left - other_left) & (other_right - right) and (right - other_right) & (other_left - left):
                return word
    return ""


def _places(order: tuple[str, ...]) -> dict[str, list[int]]:
    """Where each word stands between which things could change places."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(order):
        if len(word) > 1 and word not in SYMMETRIC and word.isalpha():
            places.setdefault(word, []).append(place)
    return places


def _around(order: tuple[str, ...], place: int) -> tuple[set[str], set[str]]:
    """The words that carry meaning within reach of a place, to the left and to the right, up to an "and" or "or"."""
    left: set[str] = set()
    for word in reversed(order[max(0, place - REACH) : place]):
        if word in SYMMETRIC:
            break
        if word not in _STOPS:
            left.add(word)
    right: set[str] = set()
    for word in order[place + 1 : place + 1 + REACH]:
        if word in SYMMETRIC:
            break
        if word not in _STOPS:
            right.add(word)
    return left, right
