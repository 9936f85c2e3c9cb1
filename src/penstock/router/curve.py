"""What a router is worth: quality against the share of requests that the strong model answers.

    PGR    performance gap recovered: (quality − the weak model's) / (the strong model's − the weak model's)
    APGR   area under PGR over the share of strong calls, 0 to 1; sending requests at random gives 0.5
    CPT    call-performance threshold: the least share of strong calls that recovers so much of the gap

(Ong et al. 2024, "RouteLLM".) A score says how much a request gains from the strong model; equal scores are sent in no order.
Over several parts, each with a router and a ranking of its own, what is gained in all of them is divided by the gap of all of them: a
part in which both models are nearly equal, whose own ratio means little, has little say.

Intervals and p-values are by bootstrap over prompts, or over whole groups of them where those are what is unseen. A group that is
in several parts (of several partitions of one table) is drawn once for all of them: testing it again is no new evidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

ROUNDS = 1000
GRID: Doubles = np.linspace(0, 1, 1001)  # shares of strong calls


class Part(Struct, frozen=True):
    """Prompts that were scored by one and the same router. `gain` is the strong model's score less the weak one's; all are [n]."""

    gain: Doubles
    scores: dict[str, Doubles]  # of each router, by its name
    groups: NDArray[np.int64] | None = None  # what is drawn as a whole, numbered over all parts; None: each prompt by itself


class Worth(Struct, frozen=True):
    """One router's figures; the interval holds 95 % of the bootstrap."""

    apgr: float
    low: float
    high: float
    cpt50: float | None  # None: never
    cpt80: float | None


class Versus(Struct, frozen=True):
    """How much more area than another router, with a 95 % interval, and one-sided p of no more at all."""

    more: float
    low: float
    high: float
    p: float


def apgr(score: Doubles, gain: Doubles) -> float:
    """The area; nan where the strong model is no better."""
    total = float(gain.sum())
    return float(np.trapezoid(*gained(score, gain)[::-1])) / total if total > 0 else float("nan")


def gained(score: Doubles, gain: Doubles) -> tuple[Doubles, Doubles]:
    """Shares of strong calls, rising from 0 to 1, and what all prompts together gain by each."""
    order = np.argsort(-score, kind="stable")
    ends = _ends(score[order])
    shares, sums = (ends + 1) / len(score), np.cumsum(gain[order])[ends]
    return np.append(0.0, shares), np.append(0.0, sums)


def curve(parts: Sequence[Part], name: str, shares: Doubles) -> Doubles:
    """What a prompt gains on average at each share of strong calls: [len(shares)]"""
    sums = sum((np.interp(shares, *gained(part.scores[name], part.gain)) for part in parts), np.zeros(len(shares)))
    return np.asarray(sums / sum(len(part.gain) for part in parts))


def cpt(score: Doubles, gain: Doubles, wanted: float) -> float | None:
    """The least share of strong calls that recovers `wanted` of the gap, to a thousandth; None: never."""
    return _least(curve([Part(gain, {"": score})], "", GRID), wanted)


def _least(gains: Doubles, wanted: float) -> float | None:
    """Of what is gained at each share of GRID."""
    reached = np.flatnonzero(gains >= wanted * gains[-1] - 1e-12)
    return float(GRID[reached[0]]) if gains[-1] > 0 and len(reached) else None


def worth(parts: Sequence[Part], rounds: int = ROUNDS, seed: int = 0) -> dict[str, Worth]:
    """Of each router, over all parts."""
    drawn = _bootstrap(parts, tuple(parts[0].scores), rounds, seed)
    found = {}
    for name, areas in drawn.items():
        low, high = np.nanquantile(areas, (0.025, 0.975))
        gains = curve(parts, name, GRID)
        found[name] = Worth(_over(parts, name), float(low), float(high), _least(gains, 0.5), _least(gains, 0.8))
    return found


def versus(parts: Sequence[Part], one: str, other: str, rounds: int = ROUNDS, seed: int = 0) -> Versus:
    """`one` against `other` on the same draws."""
    drawn = _bootstrap(parts, (one, other), rounds, seed)
    more = drawn[one] - drawn[other]
    low, high = np.nanquantile(more, (0.025, 0.975))
    p = (1 + float(np.sum(~(more > 0)))) / (1 + rounds)
    return Versus(_over(parts, one) - _over(parts, other), float(low), float(high), p)


def _over(parts: Sequence[Part], name: str) -> float:
    """The area of one router over all parts."""
    areas = [float(np.trapezoid(*gained(part.scores[name], part.gain)[::-1])) for part in parts]
    total = sum(float(part.gain.sum()) for part in parts)
    return sum(areas) / total if total > 0 else float("nan")


def _bootstrap(parts: Sequence[Part], names: Sequence[str], rounds: int, seed: int) -> dict[str, Doubles]:
    """The area of each router in each round: [rounds]. A round whose prompts gain nothing at all is nan."""
    rng = np.random.default_rng(seed)
    grouped = [part.groups for part in parts if part.groups is not None]
    drawn = _draws(1 + max(int(groups.max()) for groups in grouped), rounds, rng) if grouped else None
    areas: dict[str, Doubles] = {name: np.zeros(rounds) for name in names}
    total = np.zeros(rounds)
    for part in parts:
        if drawn is not None and part.groups is not None:
            known, member = np.unique(part.groups, return_inverse=True)
            weights = drawn[:, known]
            total += weights @ np.bincount(member, part.gain)
            for name in names:
                areas[name] += _group_areas(part.scores[name], part.gain, member, weights)
        else:
            weights = _draws(len(part.gain), rounds, rng)
            total += weights @ part.gain
            for name in names:
                areas[name] += _areas(part.scores[name], part.gain, weights)
    total[total <= 0] = np.nan
    return {name: made / total for name, made in areas.items()}


def _draws(count: int, rounds: int, rng: np.random.Generator) -> Doubles:
    """[rounds, count]: how often each was drawn."""
    return rng.multinomial(count, np.full(count, 1 / count), size=rounds).astype(np.float64)


def _areas(score: Doubles, gain: Doubles, weights: Doubles) -> Doubles:
    """The area under what is gained, with each prompt as often as it was drawn: [rounds]"""
    order = np.argsort(-score, kind="stable")
    ends = _ends(score[order])
    weighed = weights[:, order]
    calls = np.cumsum(weighed, axis=1)[:, ends]
    sums = np.cumsum(weighed * gain[order], axis=1)[:, ends]
    steps = np.diff(calls, axis=1, prepend=0.0) / np.maximum(calls[:, -1:], 1.0)
    sums[:, 1:] += sums[:, :-1].copy()
    return np.asarray(np.einsum("rn,rn->r", steps, sums) / 2)


def _group_areas(score: Doubles, gain: Doubles, member: NDArray[np.intp], weights: Doubles) -> Doubles:
    """The same where whole groups are drawn: the area is a quadratic form in how often each was. `weights` [rounds, groups]."""
    order = np.argsort(-score, kind="stable")
    ends = _ends(score[order])
    mine = np.eye(weights.shape[1])[member[order]]  # [n, groups]
    calls = np.diff(np.cumsum(mine, axis=0)[ends], axis=0, prepend=0.0)
    sums = np.cumsum(mine * gain[order, None], axis=0)[ends]
    sums[1:] += sums[:-1].copy()
    areas = np.einsum("rg,gh,rh->r", weights, calls.T @ sums, weights, optimize=True) / 2
    return np.asarray(areas / np.maximum(weights @ mine.sum(axis=0), 1.0))


def _ends(ranked: Doubles) -> NDArray[np.intp]:
    """The last place of each run of equal scores: they are one straight stretch."""
    return np.flatnonzero(np.append(np.diff(ranked) != 0, True))
