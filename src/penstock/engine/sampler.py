"""Logits to tokens, a batch at a time.

A token depends on its own row only: the number that decides it comes from the sequence's seed and the position, so
batch mates, row order and preemption change nothing. Log-probabilities are those of the model itself: before
temperature, truncation, penalties and biases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from msgspec import Struct
from torch import Tensor

from penstock.core.types import Sampling
from penstock.engine.draw import Limits, best, draw, random_states, top
from penstock.engine.kernels.cpu.drawing import MOST_IDS, Drawing
from penstock.engine.kernels.cpu.library import Pool
from penstock.engine.kernels.cpu.structs import DrawnRow
from penstock.engine.messages import Alternative, Scored
from penstock.engine.processors import Allowed, Bans, Bias, History, LogitsProcessor, Penalties, Row

__all__ = ["Row", "Sampler"]

_COLDEST = 1e-5  # a lower temperature is greedy: dividing by it would overflow
_MIN_TOP_P = 1e-9  # the best token always stays


Kind = Literal["greedy", "plain", "nucleus", "top_k"]


class Group(Struct, frozen=True):
    """Rows that are drawn in the same way, and their parameters on the device."""

    rows: list[int]
    index: slice | Tensor  # of `rows` in the batch
    temperature: Tensor  # [rows, 1] float32
    seeds: Tensor  # [rows] int64
    limits: Limits | None


class Batch(Struct, frozen=True):
    """All that stays the same from step to step while the same sequences run, in the same order."""

    keys: list[object]
    processors: list[LogitsProcessor]
    histories: dict[object, History]
    greedy: slice | Tensor | None
    groups: list[Group]
    drawing: Drawing | None  # draws for all rows; without it the two above say how
    scored: list[int]  # rows that want log-probabilities
    num_top: int


class Sampled(Struct, frozen=True):
    """The token chosen for one row, with its score where the row asks for log-probabilities."""

    token_id: int
    score: Scored | None = None


class Sampler:
    """Keeps the parameters of the current batch on the device; they are made anew only when its rows change."""

    def __init__(self, vocab_size: int, device: torch.device | str, pool: Pool | None = None) -> None:
        """`pool`: threads of native kernels, which then draw, too."""
        self._vocab_size = vocab_size
        self._device = torch.device(device)
        self._pools = None if pool is None or vocab_size > MOST_IDS else (pool, Pool(pool.library, 1))
        self._batch = self._prepare([], {})

    @torch.inference_mode()
    def sample(self, logits: Tensor, rows: Sequence[Row]) -> list[Sampled]:
        """Choose one token per row. logits: [rows, vocab] float32, contiguous; they are overwritten.

        `score` is None for rows that do not ask for log-probabilities, its `top` empty for those that ask for no alternatives.
        """
        if [row.key for row in rows] != self._batch.keys:
            self._batch = self._prepare(rows, self._batch.histories)
        batch = self._batch
        raw = logits[batch.scored] if batch.scored else None
        for processor in batch.processors:
            processor.apply(logits, rows)
        chosen = self._choose(logits, rows)
        sampled = [Sampled(token) for token in chosen]
        if raw is not None:
            for i, score in zip(batch.scored, self.score(raw, [chosen[i] for i in batch.scored], batch.num_top), strict=True):
                score = Scored(score.token_id, score.logprob, score.top[: rows[i].sampling.logprobs])
                sampled[i] = Sampled(score.token_id, score)
        return sampled

    @torch.inference_mode()
    def score(self, logits: Tensor, chosen: Sequence[int], num_top: int) -> list[Scored]:
        """Log-probabilities of the `chosen` token of each row and of its `num_top` best ones. logits: [rows, vocab] float32."""
        totals = logits.logsumexp(-1, keepdim=True)
        own = logits.gather(1, torch.tensor(chosen, device=logits.device)[:, None]) - totals
        values, ids = top(logits, min(num_top, logits.shape[-1]))
        tops = zip(ids.tolist(), (values - totals).tolist(), strict=True)
        return [
            Scored(token, logprob, tuple(map(Alternative, *top)))
            for token, (logprob,), top in zip(chosen, own.tolist(), tops, strict=True)
        ]  # fmt: skip

    def _choose(self, logits: Tensor, rows: Sequence[Row]) -> list[int]:
        if self._batch.drawing is not None:
            return self._batch.drawing.draw(logits, [row.num_output for row in rows])
        if not self._batch.groups:
            return best(logits).tolist()
        chosen = torch.empty(len(rows), dtype=torch.int64, device=self._device)
        if self._batch.greedy is not None:
            chosen[self._batch.greedy] = best(logits[self._batch.greedy])
        for group in self._batch.groups:
            positions = torch.tensor([rows[i].num_output for i in group.rows], device=self._device)
            scaled = logits[group.index].div_(group.temperature)
            chosen[group.index] = draw(scaled, random_states(group.seeds, positions), group.limits)
        return chosen.tolist()

    def _prepare(self, rows: Sequence[Row], histories: dict[object, History]) -> Batch:
        penalties = Penalties(rows, self._device, histories)
        kinds: dict[Kind, list[int]] = {}
        for i, row in enumerate(rows):
            kinds.setdefault(self._kind(row.sampling), []).append(i)
        greedy = kinds.pop("greedy", None)
        scored = [i for i, row in enumerate(rows) if row.sampling.logprobs is not None]
        return Batch(
            keys=[row.key for row in rows],
            processors=self._processors(rows, penalties),
            histories=penalties.histories,
            greedy=self._index(greedy, len(rows)) if greedy else None,
            groups=[self._group(rows, members, kind) for kind, members in kinds.items()],
            drawing=self._drawing(rows),
            scored=scored,
            num_top=max((rows[i].sampling.logprobs or 0 for i in scored), default=0),
        )

    def _processors(self, rows: Sequence[Row], penalties: Penalties) -> list[LogitsProcessor]:
        processors: list[LogitsProcessor] = [penalties] if penalties.histories else []
        if any(row.sampling.logit_bias for row in rows):
            processors.append(Bias(rows, self._vocab_size, self._device))
        if any(row.forbidden or row.bad_token_ids or row.sampling.min_tokens for row in rows):
            processors.append(Bans())
        if any(row.sampling.allowed_token_ids is not None for row in rows):
            processors.append(Allowed(rows, self._vocab_size, self._device))
        return processors

    def _kind(self, sampling: Sampling) -> Kind:
        if sampling.temperature < _COLDEST:
            return "greedy"
        if (sampling.top_k or self._vocab_size) < self._vocab_size:
            return "top_k"
        return "nucleus" if sampling.top_p < 1.0 or sampling.min_p > 0.0 else "plain"

    def _group(self, rows: Sequence[Row], members: list[int], kind: Kind) -> Group:
        samplings = [rows[i].sampling for i in members]
        return Group(
            rows=members,
            index=self._index(members, len(rows)),
            temperature=self._column([s.temperature for s in samplings]),
            seeds=torch.tensor([_signed(rows[i].seed) for i in members], device=self._device),
            limits=None if kind == "plain" else self._limits(samplings, kind),
        )

    def _drawing(self, rows: Sequence[Row]) -> Drawing | None:
        return None if self._pools is None else Drawing(*self._pools, self._vocab_size, [self._drawn(row) for row in rows])

    def _drawn(self, row: Row) -> DrawnRow:
        sampling = row.sampling
        return DrawnRow(
            temperature=0.0 if sampling.temperature < _COLDEST else sampling.temperature,
            top_p=_top_p(sampling),
            min_p=sampling.min_p,
            top_k=sampling.top_k if self._kind(sampling) == "top_k" else 0,
            seed=_signed(row.seed),
        )

    def _limits(self, samplings: list[Sampling], kind: Kind) -> Limits:
        top_ks = [s.top_k or 0 for s in samplings]
        return Limits(
            top_k=torch.tensor(top_ks, device=self._device)[:, None] if kind == "top_k" else None,
            top_p=self._column([_top_p(s) for s in samplings]),
            min_p=self._column([s.min_p for s in samplings]) if any(s.min_p > 0.0 for s in samplings) else None,
            num_candidates=min(2 * max(top_ks), self._vocab_size),
        )

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]

    def _index(self, members: list[int], total: int) -> slice | Tensor:
        """`members` as an index; all of them are a slice, which copies nothing."""
        return slice(None) if len(members) == total else torch.tensor(members, device=self._device)


def _top_p(sampling: Sampling) -> float:
    """Infinite for a row without that limit."""
    return max(sampling.top_p, _MIN_TOP_P) if sampling.top_p < 1.0 else math.inf


def _signed(seed: int) -> int:
    """Any integer as the 64 bits of an int64."""
    return (seed + 2**63) % 2**64 - 2**63
