"""Thresholds from an operator's own innocent traffic, with a bound on the share of it that is stopped.

The threshold is an order statistic of the scores of n innocent texts: with k of them above it, the share of all such texts above it
is at most the Clopper-Pearson bound of k in n, at the confidence asked for (split conformal prediction; Clopper and Pearson, 1934).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError
from penstock.guard.head import Head

CONFIDENCE = 0.95


class Limit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A head's threshold and what it rests on: `above` of `samples` innocent texts score higher, at most `bound` of all."""

    head: str  # its digest
    threshold: float
    samples: int
    above: int
    bound: float


class Calibration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `penstock guard calibrate` writes. `limits` by the name of the head."""

    rule: str
    false_alarms: float
    limits: dict[str, Limit]


def calibrated(scores: Sequence[float], head: Head, false_alarms: float) -> Limit | None:
    """The lowest threshold whose bound is within `false_alarms`; None: there are too few scores for any."""
    above = most_above(len(scores), false_alarms)
    if above is None:
        return None
    ordered = sorted(scores, reverse=True)
    threshold = ordered[above] if above < len(ordered) else 0.0
    return Limit(head=head.digest, threshold=threshold, samples=len(scores), above=above, bound=upper_bound(above, len(scores)))


def most_above(samples: int, false_alarms: float) -> int | None:
    """How many of so many innocent texts may be stopped so that the bound is within `false_alarms`; None: not even none."""
    if samples < needed(false_alarms):
        return None
    above = 0
    while above + 1 < samples and upper_bound(above + 1, samples) <= false_alarms:
        above += 1
    return above


def needed(false_alarms: float) -> int:
    """The fewest innocent texts from which a share can be bounded by `false_alarms`: the rule of three, exactly."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-false_alarms))


def upper_bound(above: int, samples: int) -> float:
    """The one-sided Clopper-Pearson bound at CONFIDENCE: the share for which `above` or fewer of `samples` would be that unlikely."""
    if above >= samples:
        return 1.0
    low, high = above / samples, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(above, samples, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most(above: int, samples: int, share: float) -> float:
    """The probability of `above` or fewer in `samples` independent texts."""
    if share <= 0 or share >= 1:
        return float(share <= 0)
    whole = math.lgamma(samples + 1)
    total = 0.0
    for k in range(above + 1):
        ways = whole - math.lgamma(k + 1) - math.lgamma(samples - k + 1)
        total += math.exp(ways + k * math.log(share) + (samples - k) * math.log1p(-share))
    return total


def thresholds(settings: RuleSettings, heads: Sequence[Head]) -> dict[str, float]:
    """Of each head by its name: what the settings say, else the calibration that they name, else what was measured.

    Raises ConfigError: the calibration cannot be read, or is of other heads.
    """
    found = {head.name: head.threshold for head in heads}
    if settings.calibration:
        found |= _read(settings, heads)
    return found if settings.threshold is None else dict.fromkeys(found, settings.threshold)


def _read(settings: RuleSettings, heads: Sequence[Head]) -> dict[str, float]:
    path = Path(settings.calibration).expanduser()
    hint = f"make one: penstock guard calibrate FILE --rule {settings.kind} --out {path}"
    try:
        calibration = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"the calibration {path} of the rule {settings.kind!r} cannot be read: {error}", hint=hint) from error
    if calibration.rule != settings.kind:
        raise ConfigError(f"the calibration {path} is of the rule {calibration.rule!r}, not {settings.kind!r}", hint=hint)
    found = {}
    for head in heads:
        if limit := calibration.limits.get(head.name):
            if limit.head != head.digest:
                raise ConfigError(f"the calibration {path} is of another head {head.name!r}: {limit.head}, not {head.digest}", hint=hint)
            found[head.name] = limit.threshold
    return found
