"""When a stored answer may be served: learned online so that wrong answers stay below a share `delta` of all lookups.

The method is that of vCache (Schroeder et al., 2025, "vCache: Verified Semantic Prompt Caching"): a cached entry has its own logistic
model of P(correct | likeness), learned from trials in which the model was asked although an answer was at hand and both were compared,
and a stored answer is served only as often as the lower confidence bound of that model allows. Three things are ours:

Strength is shared. vCache begins with nothing at each entry, so that most entries never earn a hit. Here
    logit P(correct) = a + b · trust + t,        a, b ~ N((0, 1), PRIOR),   t ~ N(0, SPREAD²)
`trust` is the log-odds that the pair model gives (`pairs`), `a` and `b` recalibrate it to this group's traffic, and `t` is the entry's
own. All are posterior means with Laplace's variance. The bound takes MARGIN standard deviations off for `a` and `b`, which are shared, so
that their error does not average out over entries; over what is left unknown of `t`, which does, it averages (MacKay, 1992). Where the
line promises more right answers than trials have shown from there up, the bound is lowered by that share.

The budget is shared. vCache lets each lookup err with probability delta. The guarantee wanted is of all lookups together, so what
a lookup does not spend is there for another: each lookup puts `delta` into its group's purse, each serving takes out its risk, and
nothing is served that the purse does not cover. So the expected number of wrong answers is at most delta times the lookups, at any time
and for whatever the choice rule, as long as the bound on the risk holds. What is spent stays below delta by so much that chance alone does
not carry the errors of WINDOW lookups above it (one time in forty). The choice rule is the price of a hit: the risk up to which
all candidates together would just spend the budget, read off the risks of the lookups so far.

Trials never end. A share TRIALS of what would be served is computed all the same, and every candidate that is not served is a
trial without further cost. What is served blindly is therefore sampled at random, and the model of it keeps being corrected.

State is plain data: an entry's trials (`Seen`, kept with it by the store; their `similarity` is the trust) and the `Tally` of a group (a
tenant; counts that add up in any order, kept by the process and begun anew with it, which costs hits and no correctness). Counts are
halved when they are many: old traffic is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from penstock.cache.store.protocol import Seen

Action = Literal["serve", "try", "pass"]

TRIALS = 0.02  # share of what would be served that is computed nevertheless
DOUBT = 10.0  # trials that it takes to half believe that the line promises too much
MARGIN = 1.0  # standard deviations of a group's recalibration
WINDOW = 5_000  # lookups
SPREAD = 0.7  # of entries' own log-odds about their group's
PRIOR_SHIFT, PRIOR_SLOPE = 0.7, 0.15  # standard deviations of `a` and `b`: how far traffic may differ from what the pair model saw
LOWEST, HIGHEST, BINS = -5.0, 7.0, 48  # log-odds; what lies outside counts in the outer bins
MOST_RISK = 1 / 3  # however full the purse: what is served is at least twice as likely right as wrong
FROM = 0.0  # trust below which nothing is ever served: trials there say little about those that count, and are many
MOST = 20_000  # lookups, and marks, before counts are halved
PURSE_LOOKUPS = 2_000  # a purse never holds more than these many lookups have put in
WIDER = math.sqrt(1 + math.pi / 8 * SPREAD**2)  # log-odds of one entry, from those that are an average over entries
WIDTH = (HIGHEST - LOWEST) / BINS


class Tally:
    """What a group's lookups came to. Counts by bin: `right` and `wrong` of trust, `risks` of the bound that decided."""

    def __init__(self) -> None:
        self.lookups = 0.0
        self.purse = 0.0
        self.risks = [0.0] * BINS
        self.right = [0.0] * BINS
        self.wrong = [0.0] * BINS
        self.fit = Fit()
        self.marks_since_fit = 0


class Fit(Struct, frozen=True):
    """Recalibration of a group: log-odds = shift + slope · trust, with the covariance of the two."""

    shift: float = 0.0
    slope: float = 1.0
    var_shift: float = PRIOR_SHIFT**2
    var_slope: float = PRIOR_SLOPE**2
    covariance: float = 0.0
    kept: tuple[float, ...] = (1.0,) * BINS  # by bin: share of the promised right answers that trials from there up have kept

    def at(self, trust: float) -> tuple[float, float]:
        """Mean and variance of the log-odds."""
        variance = self.var_shift + 2 * trust * self.covariance + trust * trust * self.var_slope
        return self.shift + self.slope * trust, max(variance, 0.0)


class Choice(Struct, frozen=True, kw_only=True):
    """What to do with the best candidate, and why. `risk`: the bound on the probability that it is wrong."""

    action: Action
    risk: float
    price: float  # the most risk that is served now
    tau: float  # probability of asking the model (vCache's τ)


class Thresholds:
    """The policy for one `delta`. Holds no state of its own; pure but for the `Tally` that it is given."""

    def __init__(self, delta: float, *, trials: float = TRIALS, pooled: bool = True) -> None:
        self._delta = max(delta / 4, delta - 1.96 * math.sqrt(delta / WINDOW)) if pooled else delta
        self._trials = trials
        self._pooled = pooled  # False: vCache's own rule, each lookup for itself

    def decide(self, tally: Tally, seen: Sequence[Seen], trust: float | None, u: float) -> Choice:
        """What to do in one lookup. `trust`: the best candidate's, None where there is none. `u`: uniform in [0, 1)."""
        tally.lookups += 1
        tally.purse = min(tally.purse + self._delta, self._delta * PURSE_LOOKUPS)
        if tally.lookups > MOST:
            _forget(tally)
        if trust is None:
            return Choice(action="pass", risk=1.0, price=0.0, tau=1.0)
        bound = lower_bound(tally.fit, seen, trust)
        risk = 1 - _sigmoid(bound)
        place = bin_of(bound)
        tally.risks[place] += 1
        serve, price = self._share(tally, place, risk)
        if self._pooled and risk > min(tally.purse, MOST_RISK):
            serve = 0.0
        tau = 1 - serve * (1 - self._trials)
        if u < tau:
            return Choice(action="try", risk=risk, price=price, tau=tau)
        tally.purse -= risk
        return Choice(action="serve", risk=risk, price=price, tau=tau)

    def _share(self, tally: Tally, place: int, risk: float) -> tuple[float, float]:
        """How often a candidate of this risk is served, and the price of a hit."""
        if not self._pooled:
            return min(1.0, self._delta / risk) if risk > 0 else 1.0, self._delta
        saved = tally.purse / (self._delta * PURSE_LOOKUPS)  # 0 to 1: risks seen before the last recalibration are not those of now
        left = (1 + 2 * saved) * self._delta * tally.lookups / (1 - self._trials)
        for at in range(BINS - 1, -1, -1):
            spent = tally.risks[at] * (1 - _sigmoid(_middle(at)))
            if spent > left:
                price = 1 - _sigmoid(_middle(at))
                return (1.0 if place > at else left / spent if place == at else 0.0), price
            left -= spent
        return 1.0, 1.0

    def learn(self, tally: Tally, trust: float, right: bool) -> None:
        """Enter a trial of the group; the entry's own is noted beside it."""
        (tally.right if right else tally.wrong)[bin_of(trust)] += 1
        tally.marks_since_fit += 1
        if tally.marks_since_fit >= max(8, 0.02 * (sum(tally.right) + sum(tally.wrong))):
            tally.marks_since_fit = 0
            tally.fit = fitted(tally.right, tally.wrong)


def lower_bound(fit: Fit, seen: Sequence[Seen], trust: float) -> float:
    """The lower confidence bound of the log-odds that this entry's answer is right at this trust."""
    mean, variance = fit.at(trust)
    bound = mean - MARGIN * math.sqrt(variance)
    if seen:
        own, own_variance = _own(fit, seen)
        bound = (WIDER * bound + own) / math.sqrt(1 + math.pi / 8 * own_variance)
    p = min(_sigmoid(bound) * fit.kept[bin_of(trust)], 1 - 1e-9)
    return math.log(p / (1 - p)) if p > 0 else bound


def bin_of(logit: float) -> int:
    """The bin of a log-odds."""
    return min(BINS - 1, max(0, int((logit - LOWEST) / WIDTH)))


def fitted(right: list[float], wrong: list[float]) -> Fit:
    """Shift and slope by Newton's method on the log-posterior, their covariance by Laplace's approximation."""
    fit = Fit()
    for _ in range(12):
        grad_shift, grad_slope = -fit.shift / PRIOR_SHIFT**2, -(fit.slope - 1) / PRIOR_SLOPE**2
        aa, bb, ab = 1 / PRIOR_SHIFT**2, 1 / PRIOR_SLOPE**2, 0.0
        for place in range(bin_of(FROM), BINS):
            count = right[place] + wrong[place]
            if not count:
                continue
            at = _middle(place)
            p = _sigmoid(fit.shift + fit.slope * at)
            error, weight = right[place] - count * p, count * p * (1 - p)
            grad_shift, grad_slope = grad_shift + error, grad_slope + error * at
            aa, bb, ab = aa + weight, bb + weight * at * at, ab + weight * at
        det = aa * bb - ab * ab
        step_shift, step_slope = (bb * grad_shift - ab * grad_slope) / det, (aa * grad_slope - ab * grad_shift) / det
        longest = max(abs(step_shift), abs(step_slope), 1.0)  # a step too long would overshoot
        fit = Fit(fit.shift + step_shift / longest, max(0.05, fit.slope + step_slope / longest), bb / det, aa / det, -ab / det)
        if abs(step_shift) + abs(step_slope) < 1e-6:
            break
    return replace(fit, kept=_kept(fit, right, wrong))


def _kept(fit: Fit, right: list[float], wrong: list[float]) -> tuple[float, ...]:
    """Where even the surest are wrong now and then, a line promises too much at its top: what trials from a bin up have shown of that."""
    shares = [1.0] * BINS
    came = promised = 0.0
    for place in range(BINS - 1, -1, -1):
        came += right[place]
        promised += (right[place] + wrong[place]) * _sigmoid(fit.shift + fit.slope * _middle(place))
        shares[place] = min(1.0, (came + DOUBT) / (promised + DOUBT))
    return tuple(shares)


def _own(fit: Fit, seen: Sequence[Seen]) -> tuple[float, float]:
    """Mean and variance of what an entry's log-odds have over its group's."""
    own, curvature = 0.0, 1 / SPREAD**2
    for _ in range(8):
        gradient, curvature = -own / SPREAD**2, 1 / SPREAD**2
        for trial in seen:
            p = _sigmoid(WIDER * (fit.shift + fit.slope * trial.similarity) + own)
            gradient += trial.same - p
            curvature += p * (1 - p)
        step = gradient / curvature
        own += max(-1.0, min(1.0, step))
        if abs(step) < 1e-4:
            break
    return own, 1 / curvature


def _middle(place: int) -> float:
    return LOWEST + (place + 0.5) * WIDTH


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else 1 - 1 / (1 + math.exp(logit))


def _forget(tally: Tally) -> None:
    tally.lookups /= 2
    tally.risks = [count / 2 for count in tally.risks]
    tally.right = [count / 2 for count in tally.right]
    tally.wrong = [count / 2 for count in tally.wrong]
