"""Where sentences end."""

from __future__ import annotations

import re

_END = re.compile(r"(?<![.!?…])[.!?…]+[\"')\]»”’]*\s+|[。！？]+|\n\s*")


def sentence_end(text: str, start: int = 0) -> int:
    """The end of the last whole sentence from `start` on, with the space after it; `start`: there is none.

    A sentence is whole when something follows it.
    """
    return max((match.end() for match in _END.finditer(text, start) if match.end() < len(text)), default=start)


def sentences(text: str, start: int = 0) -> list[tuple[int, int]]:
    """Where each sentence from `start` on begins and ends; the last may be cut short. Together they are the whole text."""
    ends = [match.end() for match in _END.finditer(text, start)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return [(begin, end) for begin, end in zip([start, *ends], ends, strict=False) if end > begin]
