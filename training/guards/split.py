"""Which part of the data a row belongs to: a stable hash of its group, the same for training and for the benchmark.

Rows that are nearly the same text, or that share an attack's goal or template, are one group and so on one side.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

Part = Literal["train", "calibrate", "test"]

Shares = tuple[tuple[Part, float], ...]

SHARES: Shares = (("train", 0.50), ("calibrate", 0.20), ("test", 0.30))
TRAPS: Shares = (("train", 0.30), ("calibrate", 0.20), ("test", 0.50))  # small sets of benign rows: more of them to report on
SAME = 0.5  # Jaccard similarity of word triples from which two texts are one group
COMMON = 60  # a triple in more texts than this tells nothing

_WORD = re.compile(r"\w+")


def part_of(group: str, shares: Shares = SHARES) -> Part:
    """The part of a group, by the SHA-256 of its name."""
    at = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    for part, share in shares:
        if at < share:
            return part
        at -= share
    return shares[-1][0]


def plain(text: str) -> str:
    """A text's words in lower case: what makes two copies of it equal."""
    return " ".join(_WORD.findall(text.lower()))


def groups(texts: Sequence[str], also: Sequence[str] = ()) -> list[str]:
    """A group's name for each text: texts that are nearly the same share one, as do those with an equal `also` (not "")."""
    parent = list(range(len(texts)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    triples = [_triples(text) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, own in enumerate(triples):
        near = {other for triple in sorted(own) for other in holders[triple][:COMMON]}
        for other in near:
            if len(own & triples[other]) >= SAME * len(own | triples[other]):
                parent[root(index)] = root(other)
        for triple in own:
            holders[triple].append(index)
    first: dict[str, int] = {}
    for index, name in enumerate(also):
        if name:
            parent[root(index)] = root(first.setdefault(name, index))
    names: dict[int, str] = {}
    for index, text in enumerate(texts):
        at = root(index)
        name = plain(text)[:200] or text[:200]
        names[at] = min(names.get(at, name), name)
    return [names[root(index)] for index in range(len(texts))]


def _triples(text: str) -> frozenset[tuple[str, ...]]:
    words = plain(text).split()
    if len(words) < 3:
        return frozenset({tuple(words)})
    return frozenset(zip(words, words[1:], words[2:], strict=False))
