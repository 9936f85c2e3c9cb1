"""How likely an answer is to be right, by the probabilities of its own tokens.

A model that is about to be wrong mostly shows it: some token was a close call. What is read of an answer are sums and extremes of
its tokens' log-probabilities, entropies and margins (Malinin and Gales 2021, "Uncertainty Estimation in Autoregressive Structured
Prediction"; Gupta et al. 2024, "Language Model Cascades: Token-level Uncertainty and Beyond"), and a logistic model of them, made
for one model by `penstock router calibrate`, says the probability (Platt 1999).

All features but three only ever fall while an answer grows. So a bound of what the whole answer can still reach is known after every
token, and an answer that cannot be trusted any more need not be finished.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.core.errors import ConfigError
from penstock.core.types import TokenLogprob

ALTERNATIVES = 5  # that are asked for beside each token
DEFAULT_QUALITY = 0.98  # of the larger model's accuracy, where nobody asks for another
NEVER = 1.0  # a trust that no answer reaches
WORST = (1, 2, 3, 5)  # of the ordered log-probabilities, those that are features
FALLING = ("total", *(f"worst{place}" for place in WORST), "entropy", "peak", "margin", "doubts")
FEATURES = (*FALLING, "length", "first", "declines")

_EPSILON = 1e-3  # a certain token's log-probability and entropy, so that their logarithm is finite
_LEAST = -30.0  # servers send -9999 for "never"
_CLEAR = 8.0  # a margin beyond it says no more
_CLOSE = 1.0  # a smaller margin is a close call
_OPENING = 80  # characters in which an answer declines, if it does
_DECLINES = (
    "i can't", "i cannot", "i can not", "i'm not able", "i am not able", "i don't know", "i do not know", "i'm not sure", "i am not sure",
    "i'm sorry", "i am sorry", "sorry,", "as an ai", "unable to",
)  # fmt: skip


class Reading:
    """What has been seen of one answer so far. `whole`: every piece of its text came with the probabilities of its tokens."""

    __slots__ = ("_close", "_entropy", "_first", "_lowest", "_margin", "_opening", "_peak", "_total", "tokens", "whole")

    def __init__(self) -> None:
        self.tokens = 0
        self.whole = True
        self._total = 0.0
        self._lowest: list[float] = []  # log-probabilities, in order
        self._entropy = 0.0
        self._peak = 0.0
        self._margin = _CLEAR
        self._close = 0
        self._first = 0.0
        self._opening = ""

    def see(self, text: str, logprobs: Sequence[TokenLogprob] | None) -> None:
        """A piece of text and its tokens, each with its alternatives."""
        if len(self._opening) < _OPENING:
            self._opening += text
        if logprobs is None:
            self.whole = self.whole and not text
            return
        for token in logprobs:
            self._take(token)

    def features(self) -> tuple[float, ...]:
        """The values of `FEATURES`; more is better for all of `FALLING`."""
        opening = self._opening[:_OPENING].lower().replace("’", "'")
        return (
            _log(-self._total),
            *(_log(-self._lowest[place - 1] if place <= len(self._lowest) else 0.0) for place in WORST),
            _log(self._entropy),
            _log(self._peak),
            self._margin,
            -math.log1p(self._close),
            math.log(max(self.tokens, 1)),
            _log(-self._first),
            float(any(phrase in opening for phrase in _DECLINES)),
        )

    def _take(self, token: TokenLogprob) -> None:
        logprob = min(max(token.logprob, _LEAST), 0.0)
        if not self.tokens:
            self._first = logprob
        self.tokens += 1
        self._total += logprob
        if len(self._lowest) < WORST[-1] or logprob < self._lowest[-1]:
            bisect.insort(self._lowest, logprob)
            del self._lowest[WORST[-1] :]
        if len(token.top) < 2:
            self.whole = False
            return
        tops = [min(max(top.logprob, _LEAST), 0.0) for top in token.top]
        entropy = max(-sum(math.exp(top) * top for top in tops), 0.0)
        self._entropy += entropy
        self._peak = max(self._peak, entropy)
        margin = tops[0] - tops[1]
        self._margin = min(self._margin, margin)
        self._close += margin < _CLOSE


class Target(Struct, frozen=True, kw_only=True):
    """What it takes that a cascade is right `quality` times as often as its larger model: the share `kept` was measured with it."""

    quality: float
    trust: float
    kept: float


class Calibration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the features of one model's answers become the probability that they are right.

    `digest` names its weights (SHA-256), where it is known. `targets` are in the order of their quality.
    """

    model: str
    larger: str  # the model that `targets` compare with
    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    longest: int  # tokens of the longest answer that was calibrated on
    targets: tuple[Target, ...]
    digest: str = ""
    measured: dict[str, float] = {}  # what the fit was like; nothing depends on it

    def confidence(self, reading: Reading) -> float:
        """The probability that the answer is right, 0 to 1; 0 where not all of it could be read."""
        return self._probability(reading, reading.features()) if reading.whole and reading.tokens else 0.0

    def at_best(self, reading: Reading) -> float:
        """The most that `confidence` can still become, whatever tokens follow, up to the longest answer calibrated on."""
        values = dict(zip(FEATURES, reading.features(), strict=True))
        logit = self.intercept
        for name, coefficient in zip(self.features, self.coefficients, strict=True):
            ends = [values[name]]
            if name == "length":
                ends.append(math.log(max(reading.tokens, self.longest)))
            elif name == "declines":
                ends.append(1.0)
            elif name in FALLING and coefficient < 0:
                ends.append(_FLOORS.get(name, -math.log(1e6)))
            logit += max(coefficient * end for end in ends)
        return _sigmoid(logit)

    def trust_for(self, quality: float | None) -> float:
        """The least confidence to trust for `quality` of the larger model's accuracy; `NEVER` where none was found to do."""
        wanted = DEFAULT_QUALITY if quality is None else quality
        return next((target.trust for target in self.targets if target.quality >= wanted), NEVER)

    def _probability(self, reading: Reading, features: Sequence[float]) -> float:
        values = dict(zip(FEATURES, features, strict=True))
        return _sigmoid(self.intercept + sum(c * values[name] for name, c in zip(self.features, self.coefficients, strict=True)))
