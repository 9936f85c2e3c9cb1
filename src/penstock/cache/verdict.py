"""Whether one of the stored questions nearest to a new one may answer it: rules, then a learned probability, then the threshold.

    candidates → `verify.differences` (any reason: out) → `pairs.PairModel` (P that the answer is right) → `threshold.Thresholds`

The semantic cache asks `judge` once for each lookup, whether or not there are candidates, and gives each trial's outcome to `learn`.
Used from one event loop or thread; nothing here waits or reads files. Some 0.3 ms for five candidates.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penstock.cache.pairs import PairModel
from penstock.cache.reading import read
from penstock.cache.store.protocol import Seen
from penstock.cache.threshold import HIGHEST, Choice, Tally, Thresholds
from penstock.cache.verify import found

Floats = NDArray[np.float32]

WEIGHTS = Path(__file__).parent / "weights"
NEAR = 0.5  # cosine from which a reason speaks of what differs
FAR = "nothing stored is near"
MOST_READ = 4096  # readings kept, some 2 kB each
MOST_GROUPS = 1024  # tallies kept; the group longest unused begins anew


class Candidate(Struct, frozen=True):
    """A stored question: its text, its vector ([dimensions], unit length) and what trials of its entry came to."""

    text: str
    vector: Floats
    seen: tuple[Seen, ...] = ()


class Verdict(Struct, frozen=True, kw_only=True):
    """`serve`: give the answer of `candidates[place]`. `try`: ask the model, compare its answer with that one's, and call `learn`.
    `pass`: ask the model; there is nothing to compare with."""

    action: Literal["serve", "try", "pass"]
    place: int | None = None
    trust: float = 0.0  # log-odds that it is right: what `Seen.similarity` of a trial is to be
    similarity: float | None = None  # cosine of that candidate, or of the nearest
    risk: float = 1.0  # upper bound of the probability that it is wrong
    tau: float = 1.0  # probability with which the model is asked
    why: str = ""


class Verifier:
    """The judgement of the semantic tier, for all groups (tenants), each with a tally of its own."""

    def __init__(self, model: PairModel, thresholds: Thresholds) -> None:
        self._model = model
        self._thresholds = thresholds
        self._read = lru_cache(maxsize=MOST_READ)(read)
        self._tallies: OrderedDict[str, Tally] = OrderedDict()

    def judge(self, group: str, text: str, vector: Floats, candidates: Sequence[Candidate], u: float) -> Verdict:
        """What to do with a question. `u` is uniform in [0, 1); `candidates` are of its own scope, in any order."""
        tally = self._tally(group)
        for same, candidate in enumerate(candidates):
            if candidate.text == text:  # nothing to be judged, and nothing to be learned about other words
                self._thresholds.decide(tally, (), None, u)
                return Verdict(action="serve", place=same, trust=HIGHEST, similarity=1.0, risk=0.0, tau=0.0, why="the very same words")
        place, trust, cosine, why = self._best(text, vector, candidates)
        if place is None:
            self._thresholds.decide(tally, (), None, u)
            return Verdict(action="pass", similarity=cosine, why=why)
        choice = self._thresholds.decide(tally, candidates[place].seen, trust, u)
        return Verdict(
            action=choice.action, place=place, trust=trust, similarity=cosine, risk=choice.risk, tau=choice.tau, why=_why(choice, cosine)
        )  # fmt: skip

    def learn(self, group: str, trust: float, same: bool) -> None:
        """A trial's outcome: whether the model's own answer said the same as the stored one."""
        self._thresholds.learn(self._tally(group), trust, same)

    def _best(self, text: str, vector: Floats, candidates: Sequence[Candidate]) -> tuple[int | None, float, float | None, str]:
        """The nearest candidate without a difference, its trust and cosine; or why there is none.

        Not the most trusted: the highest of several estimates is too high.
        """
        if not candidates:
            return None, 0.0, None, FAR
        asked = self._read(text)
        cosines = np.stack([candidate.vector for candidate in candidates]) @ vector
        why = ""
        for place in map(int, np.argsort(-cosines, kind="stable")):
            stored = self._read(candidates[place].text)
            if (reason := next(found(asked, stored), None)) is None:
                return place, self._model.trust(asked, stored, vector, candidates[place].vector), float(cosines[place]), ""
            why = why or reason
        nearest = float(cosines.max())
        return None, 0.0, nearest, FAR if nearest < NEAR else f"the nearest differs in {why.partition(':')[0]}"

    def _tally(self, group: str) -> Tally:
        tally = self._tallies.setdefault(group, Tally())
        self._tallies.move_to_end(group)
        if len(self._tallies) > MOST_GROUPS:
            self._tallies.popitem(last=False)
        return tally


def open_verifier(encoder: str, delta: float) -> Verifier:
    """For the vectors of that encoder, by its name; the pair model is read from the package. Raises LoadError."""
    return Verifier(PairModel.load(WEIGHTS, encoder), Thresholds(delta))


def _why(choice: Choice, cosine: float | None) -> str:
    like = f"cosine {cosine:.3f}, " if cosine is not None else ""
    return f"{like}wrong with probability {choice.risk:.3f} at most; up to {choice.price:.3f} is served"
