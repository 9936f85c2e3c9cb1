"""Labelled pairs of texts from a file, and their split into a part to learn from and an unseen part.

Pairs that share a text, directly or through others, form a cluster; a cluster is on one side as a whole, so that no text is on both.
Which side is a digest of the cluster's first text in the alphabet: it needs no seed and no list.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Labelled:
    """Two texts, and whether they ask the same."""

    text_a: str
    text_b: str
    same: bool


@dataclass
class Groups:
    """Which texts belong together (union-find)."""

    parents: dict[str, str] = field(default_factory=dict)

    def join(self, one: str, other: str) -> None:
        self.parents[self.of(one)] = self.of(other)

    def of(self, text: str) -> str:
        """The one that stands for a text's group."""
        self.parents.setdefault(text, text)
        while self.parents[text] != text:
            self.parents[text] = self.parents[self.parents[text]]
            text = self.parents[text]
        return text


def read_pairs(path: Path) -> list[Labelled]:
    """JSON lines of text_a, text_b and label (1: the same); gzip by its first bytes."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    rows = (json.loads(line) for line in text.splitlines() if line.strip())
    return [Labelled(row["text_a"], row["text_b"], bool(int(row["label"]))) for row in rows]


def read_mrpc(folder: Path) -> list[Labelled]:
    """The Microsoft Research Paraphrase Corpus: tab-separated, its quotes are not quoting."""
    lines = [line for path in sorted(folder.glob("*.txt")) for line in path.read_text(encoding="utf-8-sig").splitlines()[1:]]
    fields = [line.split("\t") for line in lines]
    return [Labelled(row[3], row[4], row[0] == "1") for row in fields if len(row) == 5]


def same_groups(pairs: Iterable[Labelled]) -> Groups:
    """Texts that are known to ask the same."""
    groups = Groups()
    for pair in pairs:
        groups.of(pair.text_a), groups.of(pair.text_b)
        if pair.same:
            groups.join(pair.text_a, pair.text_b)
    return groups


def split(pairs: list[Labelled], sides: int = 2) -> list[list[Labelled]]:
    """[to learn from, unseen], about half each; or as many parts."""
    groups = Groups()
    for pair in pairs:
        groups.join(pair.text_a, pair.text_b)
    first: dict[str, str] = {}
    for text in list(groups.parents):
        root = groups.of(text)
        first[root] = min(first.get(root, text), text)
    parts: list[list[Labelled]] = [[] for _ in range(sides)]
    for pair in pairs:
        name = first[groups.of(pair.text_a)]
        digest = hashlib.blake2b(name.encode(), digest_size=4, person=b"" if sides == 2 else b"%d" % sides).digest()
        parts[int.from_bytes(digest, "big") % sides].append(pair)
    return parts
