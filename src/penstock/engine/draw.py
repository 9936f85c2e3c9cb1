"""From logits to sampled token ids: random numbers, and drawing from a distribution truncated by top-k, top-p and min-p.

The truncations equal transformers' warpers in the order top-k, top-p, min-p, but for one thing: of equally probable
tokens at a limit all stay, so that no result depends on how a sort happens to order them. A row draws the same token
whatever else is in its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, threshold

_GOLDEN = -7046029254386353131  # 2**64 / golden ratio, as a signed number
_CHUNK = 128  # vocabulary entries summed at a time, so that no cumulative sum runs over the whole vocabulary
_LAST_FRACTION = 1.0 - 2.0**-32


@dataclass(frozen=True, slots=True)
class Limits:
    """Truncation of each row; all [rows, 1]. None where no row has that limit."""

    top_k: Tensor | None  # int64
    top_p: Tensor  # float32 > 0; infinite for a row that has none
    min_p: Tensor | None  # float32, share of the best token's probability
    num_candidates: int = 0  # best tokens looked at for top_k; more than the largest one where the vocabulary has more


def random_states(seeds: Tensor, positions: Tensor) -> Tensor:
    """One random state per row that depends on nothing but seed and position, all [rows] int64.

    Counter-based: splitmix64 (Steele, Lea and Flood, 2014), in integer arithmetic that is the same on every device.
    """
    return _mix(_mix(seeds + _GOLDEN) + (positions + 1) * _GOLDEN)


def next_states(states: Tensor) -> Tensor:
    """The states for one more draw at the same positions."""
    return _mix(states + _GOLDEN)


def fractions(states: Tensor) -> Tensor:
    """States as uniform numbers in [0, 1), float64."""
    return _shift(states, 16).double() * 2.0**-48


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * -4658895280553007687
    x = (x ^ _shift(x, 27)) * -7723592293110705685
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift right of int64, whose own shift would copy the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def draw(logits: Tensor, states: Tensor, limits: Limits | None) -> Tensor:
    """Sample one token per row from `softmax(logits)`, truncated by `limits`.

    logits: [rows, vocab] float32, temperature applied; they are overwritten. states: [rows] int64. Returns [rows] int64.
    """
    if limits is not None and limits.top_k is not None:
        return _draw_top_k(logits, fractions(states), limits, limits.top_k)
    weights = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    if limits is None:
        return _pick_token(weights, fractions(states))
    return _draw_nucleus(weights, states, limits)


def best(logits: Tensor) -> Tensor:
    """The first id of the largest logit of each row, [rows]."""
    if logits.device.type == "cpu":  # numpy's is one vectorized pass; torch's compares one by one, in ten times the time
        return torch.from_numpy(logits.numpy().argmax(-1))
    return logits.argmax(-1)


def top(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest logits of each row, best first, and their ids: they lie in the `count` chunks with the largest maxima."""
    if not 0 < count * _CHUNK < logits.shape[-1]:
        values, ids = logits.topk(count)
        return values, ids
    chunks = _chunked(logits, -torch.inf)
    chunk = chunks.amax(-1).topk(count).indices  # [rows, count]
    first = torch.arange(len(chunks), device=logits.device)[:, None] * chunks.shape[1]
    inside = chunks.view(-1, _CHUNK).index_select(0, (first + chunk).view(-1)).view(len(chunks), -1)
    values, place = inside.topk(count)
    return values, chunk.gather(1, place // _CHUNK) * _CHUNK + place % _CHUNK


def _draw_top_k(logits: Tensor, fraction: Tensor, limits: Limits, top_k: Tensor) -> Tensor:
    values, ids = top(logits, limits.num_candidates)  # [rows, candidates]
    weights = (values - values[:, :1]).exp()
    weights = weights.masked_fill(values < values.gather(1, top_k - 1), 0.0)
    outranked_by = weights.cumsum(-1) - weights
    smallest = weights.masked_fill(outranked_by >= limits.top_p * weights.sum(-1, keepdim=True), torch.inf).amin(-1, keepdim=True)
    if limits.min_p is not None:
        smallest = torch.maximum(smallest, limits.min_p)
    weights = weights.masked_fill(weights < smallest, 0.0)
    ids, order = ids.sort(-1)  # so that the order of equal candidates decides nothing
    picked, _ = _pick(weights.gather(1, order).double(), fraction)
    return ids.gather(1, picked[:, None]).squeeze(-1)


def _draw_nucleus(weights: Tensor, states: Tensor, limits: Limits) -> Tensor:
    """Draw by rejection, which needs no sort: a token is in the nucleus when those that outrank it weigh less than top_p.

    After a rejection only tokens above the rejected one are still possible. (Ye et al., FlashInfer, arXiv:2501.01005.)
    Overwrites `weights`.
    """
    mass = limits.top_p * weights.sum(-1, keepdim=True)
    if limits.min_p is not None:
        weights.masked_fill_(weights < limits.min_p, 0.0)
    chosen = torch.empty_like(states)
    pending = torch.arange(len(states), device=states.device)
    while pending.numel():
        ids = _pick_token(weights, fractions(states))
        chosen[pending] = ids
        picked = weights.gather(1, ids[:, None])
        mass = mass / picked
        threshold(weights.div_(picked), 1.0, 0.0, inplace=True)  # leaves what outranks it; in place, and cheaper than a mask
        rejected = (weights.sum(-1) >= mass.squeeze(-1)).nonzero().squeeze(-1)
        pending, weights, mass, states = pending[rejected], weights[rejected], mass[rejected], next_states(states[rejected])
    return chosen


def _pick_token(weights: Tensor, fraction: Tensor) -> Tensor:
    """Token ids, [rows], with probability proportional to `weights`, [rows, vocab]: first a chunk, then a token in it."""
    chunks = _chunked(weights, 0.0)
    chunk, rest = _pick(chunks.sum(-1).double(), fraction)
    inside = chunks[torch.arange(len(chunks), device=weights.device), chunk]
    picked, _ = _pick(inside.double(), rest)
    return (chunk * _CHUNK + picked).clamp_(max=weights.shape[-1] - 1)  # a row of NaN, and nothing else, ends up in the padding


def _chunked(x: Tensor, fill: float) -> Tensor:
    """[rows, vocab] as [rows, chunks, chunk size], the last chunk filled up."""
    missing = -x.shape[-1] % _CHUNK
    return (pad(x, (0, missing), value=fill) if missing else x).view(len(x), -1, _CHUNK)


def _pick(weights: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
    """The index at which the cumulative weight passes `fraction` of the total, and how far into it that is, both [rows].

    An entry without weight is never picked: its cumulative weight is that of the entry before it.
    """
    cumulative = weights.cumsum(-1)
    targets = fraction[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, targets, right=True).clamp(max=weights.shape[-1] - 1)
    weight = weights.gather(1, index)
    into = (targets - cumulative.gather(1, index) + weight) / weight
    return index.squeeze(-1), into.squeeze(-1).clamp(0.0, _LAST_FRACTION)
