"""What changes logits before a token is chosen: penalties, biases, bans and allowed ids. Each touches only the rows that ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from penstock.core.errors import InvalidRequest
from penstock.core.types import Sampling

BANNED = -1e30  # finite, so that a row whose allowed ids are all banned still has a best one


class Row(Struct, frozen=True, kw_only=True):
    """One sequence that wants a token. Rows with equal keys have the same sampling, seed and bad tokens."""

    key: object
    sampling: Sampling
    seed: int
    tokens: Sequence[int]  # prompt, then what was generated
    num_prompt: int
    forbidden: tuple[int, ...] = ()  # not yet: what would end the sequence before its min_tokens
    bad_token_ids: tuple[tuple[int, ...], ...] = ()  # sequences whose last token must not follow the others

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt


class LogitsProcessor(Protocol):
    """Made for a set of rows and applied at each step while that set lasts."""

    def apply(self, logits: Tensor, rows: Sequence[Row]) -> None:
        """Change logits, [rows, vocab] float32, in place. `rows` have the keys, in the order, that it was made for."""


def check_token_ids(sampling: Sampling, bad_token_ids: Sequence[Sequence[int]], vocab_size: int) -> None:
    """Raise InvalidRequest for a token id, anywhere in the sampling of a request, that is not in the vocabulary."""
    named = {
        "logit_bias": sampling.logit_bias,
        "allowed_token_ids": sampling.allowed_token_ids or (),
        "stop_token_ids": sampling.stop_token_ids,
        "bad_words": [token for sequence in bad_token_ids for token in sequence],
    }
    for param, ids in named.items():
        outside = next((i for i in ids if not 0 <= i < vocab_size), None)
        if outside is not None:
            raise InvalidRequest(
                f"{param} has token id {outside}, the vocabulary has {vocab_size}",
                hint=f"use ids from 0 to {vocab_size - 1}", param=param,
            )  # fmt: skip


@dataclass(slots=True)
class History:
    """The distinct tokens of one sequence and how often each of them was generated."""

    num_seen: int  # tokens of the sequence that are counted already
    slots: dict[int, int] = field(default_factory=dict)  # token -> index in `ids` and `counts`
    ids: np.ndarray[tuple[int], np.dtype[np.int64]] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    counts: np.ndarray[tuple[int], np.dtype[np.float32]] = field(default_factory=lambda: np.zeros(256, dtype=np.float32))

    def advance(self, row: Row) -> None:
        for position in range(self.num_seen, len(row.tokens)):
            token = row.tokens[position]
            slot = self.slots.setdefault(token, len(self.slots))
            if slot == len(self.ids):
                self.ids = np.concatenate([self.ids, np.zeros_like(self.ids)])
                self.counts = np.concatenate([self.counts, np.zeros_like(self.counts)])
            self.ids[slot] = token
            self.counts[slot] += position >= row.num_prompt
        self.num_seen = len(row.tokens)


class Penalties:
    """Repetition penalty over prompt and output (Keskar et al., CTRL, 2019), frequency and presence penalty over the output."""

    def __init__(self, rows: Sequence[Row], device: torch.device, histories: dict[object, History]) -> None:
        """`histories` of sequences that were there before are taken over."""
        self._rows = [i for i, row in enumerate(rows) if _has_penalty(row.sampling)]
        self.histories = {rows[i].key: histories.get(rows[i].key) or _history(rows[i]) for i in self._rows}
        self._device = device
        chosen = [rows[i].sampling for i in self._rows]
        self._penalties = np.array([[s.repetition_penalty, s.frequency_penalty, s.presence_penalty] for s in chosen], dtype=np.float32)

    def apply(self, logits: Tensor, rows: Sequence[Row]) -> None:
        index, counts, sizes = [], [], []
        for i in self._rows:
            history = self.histories[rows[i].key]
            history.advance(rows[i])
            size = len(history.slots)
            sizes.append(size)
            index.append(history.ids[:size] + i * logits.shape[-1])
            counts.append(history.counts[:size])
        repetition, frequency, presence = self._tensor(np.repeat(self._penalties, sizes, axis=0)).unbind(-1)
        count, where, flat = self._tensor(np.concatenate(counts)), self._tensor(np.concatenate(index)), logits.view(-1)
        values = flat[where]
        values = torch.where(values > 0, values / repetition, values * repetition)
        flat[where] = (values - frequency * count - presence * (count > 0)).clamp_(BANNED, -BANNED)  # finite, however extreme

    def _tensor(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _has_penalty(sampling: Sampling) -> bool:
    return sampling.repetition_penalty != 1.0 or sampling.frequency_penalty != 0.0 or sampling.presence_penalty != 0.0


def _history(row: Row) -> History:
    return History(num_seen=0 if row.sampling.repetition_penalty != 1.0 else row.num_prompt)


class Bias:
    """Adds `logit_bias`."""

    def __init__(self, rows: Sequence[Row], vocab_size: int, device: torch.device) -> None:
        self._index = _flat(((i, row.sampling.logit_bias) for i, row in enumerate(rows)), vocab_size, device)
        biases = [bias for row in rows for bias in row.sampling.logit_bias.values()]
        self._values = torch.tensor(biases, dtype=torch.float32, device=device)

    def apply(self, logits: Tensor, rows: Sequence[Row]) -> None:
        logits.view(-1).index_add_(0, self._index, self._values)


class Bans:
    """Takes the weight from tokens that would end a sequence too early or complete its bad words."""

    def apply(self, logits: Tensor, rows: Sequence[Row]) -> None:
        banned = [(i, [*row.forbidden, *_completing(row)]) for i, row in enumerate(rows) if row.forbidden or row.bad_token_ids]
        if banned:
            logits.view(-1)[_flat(banned, logits.shape[-1], logits.device)] = BANNED


def _completing(row: Row) -> list[int]:
    """The tokens that would complete one of the row's bad sequences, all of it in the output."""
    lengths = ((bad, len(bad) - 1) for bad in row.bad_token_ids)
    return [bad[-1] for bad, n in lengths if n <= row.num_output and tuple(row.tokens[len(row.tokens) - n :]) == bad[:-1]]


class Allowed:
    """Leaves only `allowed_token_ids`."""

    def __init__(self, rows: Sequence[Row], vocab_size: int, device: torch.device) -> None:
        allowed = [(i, row.sampling.allowed_token_ids) for i, row in enumerate(rows) if row.sampling.allowed_token_ids is not None]
        self._rows = torch.tensor([i for i, _ in allowed], device=device)
        self._index = _flat(allowed, vocab_size, device)

    def apply(self, logits: Tensor, rows: Sequence[Row]) -> None:
        flat = logits.view(-1)
        kept = flat[self._index]
        logits.index_fill_(0, self._rows, -torch.inf)
        flat[self._index] = kept


def _flat(ids: Iterable[tuple[int, Iterable[int]]], vocab_size: int, device: torch.device) -> Tensor:
    """Indices into the flattened [rows, vocab] logits, of (row, token ids)."""
    return torch.tensor([row * vocab_size + token for row, tokens in ids for token in tokens], dtype=torch.int64, device=device)
