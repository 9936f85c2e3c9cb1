"""A text read another way, and where each part of it stands in what was really written."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable

from msgspec import Struct


class Change(Struct, frozen=True):
    """Characters `start` to `end` of a text that read as `text`."""

    start: int
    end: int
    text: str


class View(Struct, frozen=True):
    """A reading. `places` are the beginnings of its parts here and there, in order; a part that was not changed is as long in both.

    The last place is the end of both texts. `below`: what was read is a view itself.
    """

    text: str
    places: tuple[tuple[int, int, bool], ...]  # here, there, whether this part was changed
    decoded_by: tuple[str, ...] = ()
    below: View | None = None

    def there(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of what was really written that holds `start` to `end` of this text."""
        start, end = self._first(start), self._last(end)
        return self.below.there(start, end) if self.below is not None else (start, end)

    def here(self, at: int) -> int:
        """Where what follows `at` in the text below begins in this one; inside a changed part: after it."""
        index = bisect.bisect_right(self.places, at, key=lambda place: place[1]) - 1
        here, there, changed = self.places[index]
        if not changed:
            return here + at - there
        return here if at == there or index + 1 == len(self.places) else self.places[index + 1][0]

    def _first(self, at: int) -> int:
        index = bisect.bisect_right(self.places, at, key=lambda place: place[0]) - 1
        here, there, changed = self.places[index]
        return there if changed else there + at - here

    def _last(self, end: int) -> int:
        index = bisect.bisect_left(self.places, end, key=lambda place: place[0]) - 1
        if index < 0:
            return 0
        here, there, changed = self.places[index]
        return self.places[index + 1][1] if changed else there + end - here


def read(text: str, changes: Iterable[Change], decoded_by: str, below: View | None = None) -> View:
    """The view of `text` (that of `below`, if any) with `changes` made, which are in order and apart."""
    pieces: list[str] = []
    places: list[tuple[int, int, bool]] = []
    here = there = 0
    for change in changes:
        if change.start > there:
            places.append((here, there, False))
            pieces.append(text[there : change.start])
            here += change.start - there
        places.append((here, change.start, True))
        pieces.append(change.text)
        here, there = here + len(change.text), change.end
    if there < len(text):
        places.append((here, there, False))
        pieces.append(text[there:])
        here += len(text) - there
    places.append((here, len(text), False))
    return View("".join(pieces), tuple(places), (*(below.decoded_by if below else ()), decoded_by), below)


def replaced(pattern: re.Pattern[str], text: str, to: Callable[[re.Match[str]], str | None]) -> list[Change]:
    """The changes that `to` makes of each match; None: it stays."""
    found = ((match, to(match)) for match in pattern.finditer(text))
    return [Change(match.start(), match.end(), new) for match, new in found if new is not None and new != match[0]]
