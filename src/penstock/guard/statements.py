"""A text as the statements that rules judge: sentences, lines, table rows, JSON strings and what stands in comments of markup."""

from __future__ import annotations

import re

LONGEST = 600  # characters; a longer one is cut there

_END = re.compile(
    r"(?<=[.!?])[\"'”’)\]]*\s+|[。！？]|(?<!\s)\s*\n\s*"  # a run of space is looked at once: each of its places would be the square of them
    r"|(?<=\|)(?=[A-Z][A-Z ]+:)"  # the fields of an e-mail in one line
    r"|(?:\\[nrt])+\s*|(?<=[^\\]\")\s*[,:]\s*(?=\")"  # JSON: escaped line ends, and one string after another
    r"|(?:(?<!\s)\s+)?(?:<!--|-->|</?\w[^<>]{0,80}>)\s*"  # markup
)
_LETTER = re.compile(r"\w")


def statements(text: str) -> list[tuple[int, int]]:
    """The (start, end) of each statement, in order; between them is only space or markup."""
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
