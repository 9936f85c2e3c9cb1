"""Where the sentences of a text begin and end."""

from __future__ import annotations

import re

LONGEST = 600  # characters; a longer one is cut there

_END = re.compile(r"(?<=[.!?。！？])[\"'”’)\]]*\s+|[。！？]|\s*\n\s*|(?<=\|)\s*(?=[A-Z]+:)|\s*(?:<!--|-->|</?\w+[^<>]{0,80}>)\s*")
_LETTER = re.compile(r"\w")


def sentences(text: str) -> list[tuple[int, int]]:
    """The (start, end) of each sentence or line that says something, in order; what is between them is space or markup."""
    found: list[tuple[int, int]] = []
    start = 0
    for match in [*_END.finditer(text), None]:
        end = match.start() if match else len(text)
        for cut in range(start, end, LONGEST):
            stop = min(cut + LONGEST, end)
            if _LETTER.search(text, cut, stop):
                found.append((cut, stop))
        start = match.end() if match else len(text)
    return found
