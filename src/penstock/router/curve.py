"""What a router is worth: quality against the share of requests that the strong model answers.

    PGR    performance gap recovered: (quality − the weak model's) / (the strong model's − the weak model's)
    APGR   area under PGR over the share of strong calls, 0 to 1; sending requests at random gives 0.5
    CPT    call-performance threshold: the least share of strong calls that recovers so much of the gap

(Ong et al. 2024, "RouteLLM".) A score says how much a request gains from the strong model; equal scores are sent in no order.
Intervals and p-values are by bootstrap over prompts, or over whole groups of them where those are what is unseen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

ROUNDS = 1000


class Part(Struct, frozen=True):
    """Prompts that were scored by one and the same router. `gain` is the strong model's score less the weak one's; all are [n]."""

    gain: Doubles
    scores: dict[str, Doubles]  # of each router, by its name
    groups: NDArray[np.int64] | None = None  # what is drawn as a whole; None: each prompt by itself


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


def apgr(score: Doubles, gain: Doubles, weights: Doubles | None = None) -> float:
    """The area; nan where the strong model is no better. `weights` say how often each prompt counts."""
    shares, recovered = curve(score, gain, weights)
    return float(np.trapezoid(recovered, shares))


def curve(score: Doubles, gain: Doubles, weights: Doubles | None = None) -> tuple[Doubles, Doubles]:
    """Shares of strong calls, rising from 0 to 1, and the gap that each recovers."""
    order = np.argsort(-score, kind="stable")
    weights = np.ones(len(score)) if weights is None else weights[order]
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # equal scores are one straight stretch
    calls, gained = np.cumsum(weights)[ends], np.cumsum(weights * gain[order])[ends]
    total = gained[-1] if gained[-1] > 0 else np.nan
    return np.append(0.0, calls / calls[-1]), np.append(0.0, gained / total)


def cpt(score: Doubles, gain: Doubles, wanted: float) -> float | None:
    """The least share of strong calls that recovers `wanted` of the gap."""
    shares, recovered = curve(score, gain)
    reached = np.flatnonzero(recovered >= wanted)
    if not len(reached):
        return None
    place = int(reached[0])
    before, after = recovered[place - 1], recovered[place]
    return float(shares[place - 1] + (shares[place] - shares[place - 1]) * (wanted - before) / (after - before))


def worth(parts: Sequence[Part], rounds: int = ROUNDS, seed: int = 0) -> dict[str, Worth]:
    """Of each router: means over the parts."""
    drawn = _bootstrap(parts, rounds, seed)
    return {
        name: Worth(
            apgr=_mean([apgr(part.scores[name], part.gain) for part in parts]) or 0.0,
            low=float(np.nanquantile(drawn[name], 0.025)),
            high=float(np.nanquantile(drawn[name], 0.975)),
            cpt50=_mean([cpt(part.scores[name], part.gain, 0.5) for part in parts]),
            cpt80=_mean([cpt(part.scores[name], part.gain, 0.8) for part in parts]),
        )
        for name in parts[0].scores
    }


def versus(parts: Sequence[Part], one: str, other: str, rounds: int = ROUNDS, seed: int = 0) -> Versus:
    """`one` against `other` on the same draws."""
    drawn = _bootstrap(parts, rounds, seed)
    more = drawn[one] - drawn[other]
    seen = _mean([apgr(part.scores[one], part.gain) - apgr(part.scores[other], part.gain) for part in parts]) or 0.0
    p = (1 + float(np.sum(more <= 0))) / (1 + rounds)
    return Versus(seen, float(np.nanquantile(more, 0.025)), float(np.nanquantile(more, 0.975)), p)


def _bootstrap(parts: Sequence[Part], rounds: int, seed: int) -> dict[str, Doubles]:
    """The mean area of each router in each round: [rounds]."""
    rng = np.random.default_rng(seed)
    areas: dict[str, Doubles] = {name: np.zeros(rounds) for name in parts[0].scores}
    for part in parts:
        weights = _draws(part, rounds, rng)
        for name, score in part.scores.items():
            areas[name] += _areas(score, part.gain, weights) / len(parts)
    return areas


def _draws(part: Part, rounds: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """[rounds, n]: how often each prompt was drawn, with its group."""
    groups = np.arange(len(part.gain)) if part.groups is None else np.unique(part.groups, return_inverse=True)[1]
    count = int(groups.max()) + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=rounds).astype(np.float32)
    return np.asarray(drawn[:, groups], dtype=np.float32)


def _areas(score: Doubles, gain: Doubles, weights: NDArray[np.float32]) -> Doubles:
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    weighed = weights[:, order].astype(np.float64)
    calls = np.cumsum(weighed, axis=1)[:, ends]
    gained = np.cumsum(weighed * gain[order], axis=1)[:, ends]
    total = np.where(gained[:, -1] > 0, gained[:, -1], np.nan)
    steps = np.diff(calls, axis=1, prepend=0.0) / calls[:, -1:]
    heights = gained + np.concatenate([np.zeros((len(gained), 1)), gained[:, :-1]], axis=1)
    return np.asarray((steps * heights).sum(axis=1) / 2 / total)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
