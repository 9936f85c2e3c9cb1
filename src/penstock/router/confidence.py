"""How likely an answer is to be right, by the probabilities of its own tokens.

A model that is about to be wrong mostly shows it: some token was a close call. What is read of an answer are sums and extremes of
its tokens' log-probabilities, entropies and margins (Malinin and Gales 2021, "Uncertainty Estimation in Autoregressive Structured
Prediction"; Gupta et al. 2024, "Language Model Cascades: Token-level Uncertainty and Beyond"), and a logistic model of them, each by
a curve of its own (Hastie and Tibshirani 1986, "Generalized Additive Models"), says the probability. `penstock router calibrate`
makes it, for one model.

Nearly all of these features only ever fall while an answer grows. So a bound of what the whole answer can still reach is known
after every token, and an answer that cannot be trusted any more need not be finished.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.core.config import RouterSettings
from penstock.core.errors import ConfigError
from penstock.core.types import TokenLogprob
from penstock.router.policy import TIERS

ALTERNATIVES = 5  # that are asked for beside each token
DEFAULT_QUALITY = 0.98  # of the larger model's accuracy, where nobody asks for another
NEVER = 1.0  # a trust that no answer reaches
WORST = (1, 2, 3, 5)  # of the ordered log-probabilities, those that are features
FALLING = ("total", *(f"worst{place}" for place in WORST), "entropy", "peak", "margin", "doubts")
FEATURES = (*FALLING, "length", "first", "declines")

_BUILTIN = Path(__file__).parents[1] / "builtin"
_MAKE = "make one with penstock router calibrate"
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

    def features(self) -> dict[str, float]:
        """The value of each of `FEATURES`; logarithms, so that small doubts are told apart as well as large ones."""
        lowest = {f"worst{place}": _log(-self._lowest[place - 1] if place <= len(self._lowest) else 0.0) for place in WORST}
        return {
            "total": _log(-self._total),
            **lowest,
            "entropy": _log(self._entropy),
            "peak": _log(self._peak),
            "margin": self._margin,
            "doubts": -math.log1p(self._close),
            "length": math.log(max(self.tokens, 1)),
            "first": _log(-self._first),
            "declines": float(self._declines()),
        }

    def reach(self, longest: int) -> dict[str, tuple[float, float]]:
        """The least and the most that each of `FEATURES` can be once the answer has ended, after `longest` tokens at most."""
        reach = {name: (-math.inf, value) for name, value in self.features().items()}
        reach["length"] = (reach["length"][1], math.log(max(self.tokens, longest, 1)))
        reach["first"] = (reach["first"][1],) * 2 if self.tokens else (-math.inf, math.inf)
        reach["declines"] = (reach["declines"][1], 1.0)
        return reach

    def _declines(self) -> bool:
        opening = self._opening[:_OPENING].lower().replace("’", "'")
        return any(phrase in opening for phrase in _DECLINES)

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


class Curve(Struct, frozen=True):
    """A function of one feature: straight between its points, level beyond them. `xs` rise."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]

    def at(self, x: float) -> float:
        if x <= self.xs[0]:
            return self.ys[0]
        if x >= self.xs[-1]:
            return self.ys[-1]
        right = bisect.bisect_right(self.xs, x)
        (x0, x1), (y0, y1) = self.xs[right - 1 : right + 1], self.ys[right - 1 : right + 1]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)

    def most(self, low: float, high: float) -> float:
        """Its largest value between `low` and `high`."""
        inside = self.ys[bisect.bisect_left(self.xs, low) : bisect.bisect_right(self.xs, high)]
        return max(self.at(low), self.at(high), *inside)


class Target(Struct, frozen=True, kw_only=True):
    """What it takes that a cascade is right `quality` times as often as its larger model, and the share of answers it keeps then."""

    quality: float
    trust: float
    kept: float


class Calibration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the features of one model's answers become the probability that they are right: a curve for each, summed.

    `digest` names the model's weights (SHA-256), where they are known. `targets` are in the order of their quality.
    """

    model: str
    larger: str  # the model that `targets` compare with
    intercept: float
    curves: dict[str, Curve]  # by feature
    longest: int  # tokens: few answers are longer, and hardly any becomes better by it
    targets: tuple[Target, ...]
    digest: str = ""
    measured: dict[str, float] = {}  # what the fit was like; nothing depends on it

    def confidence(self, reading: Reading) -> float:
        """The probability that the answer is right, 0 to 1; 0 where not all of it could be read."""
        if not reading.whole or not reading.tokens:
            return 0.0
        features = reading.features()
        return sigmoid(self.intercept + sum(curve.at(features[name]) for name, curve in self.curves.items()))

    def at_best(self, reading: Reading) -> float:
        """The most that `confidence` can become, whatever tokens follow, where the answer does not outgrow `longest`."""
        if not reading.whole:
            return 0.0
        reach = reading.reach(self.longest)
        return sigmoid(self.intercept + sum(curve.most(*reach[name]) for name, curve in self.curves.items()))

    def trust_for(self, quality: float | None) -> float:
        """The least confidence to trust for `quality` of the larger model's accuracy; `NEVER` where none was found to do."""
        wanted = DEFAULT_QUALITY if quality is None else quality
        return next((target.trust for target in self.targets if target.quality >= wanted), NEVER)


def read_calibration(path: Path) -> Calibration:
    """What `penstock router calibrate` wrote. Raises ConfigError."""
    try:
        calibration = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError as error:
        raise ConfigError(f"the calibration {path} cannot be read: {error.strerror}", hint=_MAKE) from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is no calibration: {error}", hint=_MAKE) from None
    unknown = next((name for name in calibration.curves if name not in FEATURES), None)
    if unknown is not None:
        raise ConfigError(f"{path} uses the feature {unknown!r}, which this version does not know", hint=_MAKE)
    for name, curve in calibration.curves.items():
        if len(curve.xs) < 2 or len(curve.xs) != len(curve.ys) or sorted(set(curve.xs)) != list(curve.xs):
            raise ConfigError(f"{path}: the points of {name!r} make no curve", hint=_MAKE)
    return calibration


def builtin_calibrations() -> dict[str, Calibration]:
    """Of the models that come with Penstock, by name."""
    found = map(read_calibration, sorted(_BUILTIN.glob("*.cascade.json")))
    return {calibration.model: calibration for calibration in found}


def calibrations(settings: RouterSettings, served: Mapping[str, str]) -> dict[str, Calibration]:
    """By the name under which each model is served; `served` maps those names to what was loaded.

    Raises ConfigError for a file that cannot be read or whose model is not served, and for a cascade whose first model has none.
    """
    known = builtin_calibrations()
    if settings.calibration:
        given = read_calibration(Path(settings.calibration).expanduser())
        if given.model not in served and given.model not in served.values():
            where = f"{settings.calibration} calibrates {given.model!r}"
            raise ConfigError(f"{where}, which is not served", hint=f"served here: {', '.join(served)}")
        known[given.model] = given
    found = {name: known[own] for name, root in served.items() for own in (root, name) if own in known}
    if settings.policy == "cascade" and settings.mode != "off":
        first = next((settings.tiers[tier] for tier in TIERS if tier in settings.tiers), None)
        if first in served and first not in found:
            hint = f"make one with penstock router calibrate --small {first}, and name it in router.calibration"
            raise ConfigError(f"the cascade asks {first!r} first, of which no calibration is known", hint=hint)
    return found


def sigmoid(logit: float) -> float:
    """The logistic function; no input overflows."""
    return 1.0 / (1.0 + math.exp(-logit)) if logit >= 0 else 1.0 - 1.0 / (1.0 + math.exp(max(logit, -700.0)))


def _log(doubt: float) -> float:
    return -math.log(_EPSILON + doubt)
