"""Stretches of a text that a recogniser knows: what they are, how sure it is, and which of two that overlap counts."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from penstock.core.errors import missing_extra

LONGEST_NUMBER = 44  # characters of an account or telephone number with its spaces
MOST_GROUPS = 9  # of a number: as many has the longest account number
UNSPACED = r"\x{2e80}-\x{10ffff}"  # letters, in RE2's syntax, that follow a word without a space: Chinese, Japanese, Korean
BEFORE = 48  # characters before a find that may speak for or against it


class Found(Struct, frozen=True, order=True):
    """`text[start:end]` is a `kind`. `score`: 0 to 1, how strong the evidence is; a check digit is strong, a shape is weak."""

    start: int
    end: int
    kind: str
    score: float = 1.0


class Pattern(Struct, frozen=True, kw_only=True):
    """A regular expression (RE2) and what must hold besides. The span is its group 1 where it has one, else all of it.

    `check` sees what was found and the `BEFORE` characters before it.
    """

    kind: str
    regex: str
    check: Callable[[str, str], bool] | None = None
    score: float = 1.0
    edges: str = ""  # characters besides letters and digits that may not touch the span


class Scanner:
    """Finds one pattern in time that is linear in the text. Raises `MissingExtra` when google-re2 is not installed."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self._regex = compiled(pattern.regex)

    def __call__(self, text: str) -> Iterator[Found]:
        pattern = self.pattern
        for match in self._regex.finditer(text):
            start, end = match.span(1 if self._regex.groups else 0)
            if touches(text, start, end, pattern.edges):
                continue
            if pattern.check is None or pattern.check(text[start:end], text[max(0, start - BEFORE) : start]):
                yield Found(start, end, pattern.kind, pattern.score)


def compiled(regex: str) -> re.Pattern[str]:
    """`regex` as RE2 compiles it: matching takes time linear in the text, whatever the expression."""
    try:
        import re2
    except ImportError as error:
        raise missing_extra("finding personal data", "guard") from error
    options = re2.Options()
    options.max_mem = 64 << 20  # bytes; with less, some expressions fall back to a slower way
    options.log_errors = False
    pattern: re.Pattern[str] = re2.compile(regex, options)
    return pattern


def touches(text: str, start: int, end: int, edges: str = "") -> bool:
    """Whether `text[start:end]` is only a part of a longer word. Scripts without spaces between words do not count."""
    before, after = text[start - 1 : start], text[end : end + 1]
    return joins(before) or joins(after) or (before != "" and before in edges) or (after != "" and after in edges)


def joins(character: str) -> bool:
    """Whether a letter or digit continues the word beside it: in Chinese, Japanese and Korean there is no telling."""
    return character.isalnum() and character < "\u2e80"


def windows(text: str, start: int, end: int, gaps: str) -> Iterator[tuple[int, int]]:
    """Stretches of `text[start:end]` between its `gaps` (a regular expression), by where they begin, the longest first.

    None is longer than `LONGEST_NUMBER` or has more than `MOST_GROUPS`, so their number grows with the text and not with its square.
    """
    found = [(start + gap.start(), start + gap.end()) for gap in re.finditer(gaps, text[start:end])]
    ends = [*(first for first, _ in found), end]
    for begin in (start, *(last for _, last in found)):
        first = bisect_right(ends, begin)
        last = bisect_right(ends, begin + LONGEST_NUMBER, first, min(first + MOST_GROUPS, len(ends)))
        for stop in reversed(ends[first:last]):
            yield begin, stop


def resolve(spans: Iterable[Found]) -> tuple[Found, ...]:
    """Without overlaps, in the order of the text: of two that overlap the surer one counts, then the longer."""
    kept: list[Found] = []  # in the order of the text
    for span in sorted(spans, key=lambda span: (-span.score, span.start - span.end, span.start)):
        place = bisect_right(kept, span.start, key=lambda other: other.start)
        is_free = place == 0 or kept[place - 1].end <= span.start
        if is_free and (place == len(kept) or span.end <= kept[place].start):
            kept.insert(place, span)
    return tuple(kept)
