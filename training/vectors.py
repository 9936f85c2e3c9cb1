"""Vectors of many texts, kept in a file between runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.embed import TextVectors

Floats = NDArray[np.float32]


class Texts:
    """`folder` None: nothing is kept."""

    def __init__(self, vectors: TextVectors, folder: Path | None) -> None:
        self._vectors = vectors
        self._path = None if folder is None else folder / f"{vectors.digest[:12]}.npz"

    def of(self, texts: Sequence[str]) -> Floats:
        """[len(texts), dimensions]."""
        known: dict[str, Floats] = {}
        if self._path is not None and self._path.exists():
            with np.load(self._path) as held:
                known = dict(zip(held["texts"].tolist(), held["vectors"], strict=True))
        new = sorted((text for text in dict.fromkeys(texts) if text not in known), key=len)
        for start in range(0, len(new), 1024):
            part = new[start : start + 1024]
            known |= dict(zip(part, self._vectors.now(part), strict=True))
            if sys.stderr.isatty():
                print(f"\rembedded {start + len(part):,} of {len(new):,}", end="", file=sys.stderr)
        if self._path is not None and new:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(self._path, texts=np.array(list(known)), vectors=np.stack(list(known.values())))
        return np.stack([known[text] for text in texts])
