"""A table of token vectors in place of a model: a text's vector is the mean of its tokens' rows, scaled to length one.

The table is distilled from all-MiniLM-L6-v2 by `python -m training.static` (Model2Vec: Tulkens and van Dongen, 2024). Words count
alike wherever they stand, so it knows what a text is about and not who did what to whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from penstock.core.errors import LoadError
from penstock.embed.minilm import Floats, unit

STATIC_FOLDER = Path(__file__).parents[1] / "builtin" / "static-minilm"
UNKNOWN = "[UNK]"


class StaticTable:
    """The table of one folder. Raises LoadError."""

    DIMENSIONS: ClassVar[int] = 124
    FILES: ClassVar[tuple[str, ...]] = ("table.safetensors", "vocab.txt")

    def __init__(self, folder: Path) -> None:
        try:
            tensors = load_file(folder / "table.safetensors")
            self._table = tensors["rows"].astype(np.float32) * tensors["scales"][:, None].astype(np.float32)  # [tokens, dimensions]
            self._start = tensors["start"].astype(np.float32)  # [dimensions]: what every text begins with
            words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise LoadError(f"the static encoder in {folder} cannot be read: {error}", hint="install penstock again") from error
        self._tokenizer = word_pieces(words)

    def encode(self, texts: Sequence[str]) -> Floats:
        """[len(texts), DIMENSIONS], each row of length one; a text of any length."""
        sums = np.empty((len(texts), len(self._start)), dtype=np.float32)
        for place, encoding in enumerate(self._tokenizer.encode_batch(list(texts))):
            np.sum(self._table[encoding.ids], axis=0, out=sums[place])
        return unit(sums + self._start)


def word_pieces(words: Sequence[str]) -> Tokenizer:
    """The tokenizer of a BERT that is not cased, over a vocabulary in order."""
    tokenizer = Tokenizer(WordPiece({word: place for place, word in enumerate(words)}, unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer
