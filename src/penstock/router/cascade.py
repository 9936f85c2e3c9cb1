"""The policy "cascade": ask the lowest tier's model first, and the highest tier's where the answer cannot be trusted.

(Chen et al. 2023, "FrugalGPT".) Here is only said who is asked first, who then, and how much trust the wanted quality takes, by the
first model's calibration; without one the quality itself is the least probability that the first answer is right. Whoever calls
the models asks them and weighs the answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.router.confidence import DEFAULT_QUALITY, NEVER, Calibration
from penstock.router.policy import Asked, Choice


class Cascade:
    """First the lowest, then the highest model that the request may go to; where they are one, only that."""

    name = "cascade"

    def __init__(self, calibrations: Mapping[str, Calibration]) -> None:
        """`calibrations` are those of the models that may be asked first, by name."""
        self._calibrations = calibrations

    async def decide(self, asked: Asked) -> Choice:
        first, last = asked.tiers.distinct[0], asked.tiers.distinct[-1]
        if first == last:
            why = f"{first!r} is the only model that this request may go to"
            return Choice(model=first, tier=asked.tiers.lowest(first), why=why)
        quality = DEFAULT_QUALITY if asked.quality is None else asked.quality
        calibration = self._calibrations.get(first)
        trust = quality if calibration is None else calibration.trust_for(quality)
        if calibration is not None and trust >= NEVER:
            why = f"{last!r} at once: no answer of {first!r} can be trusted enough for the quality {quality:g}"
            return Choice(model=last, tier=asked.tiers.lowest(last), why=why)
        why = f"{first!r} first; {last!r} where its answer is less than {trust:.0%} likely to be right"
        return Choice(model=first, tier=asked.tiers.lowest(first), why=why, then=last, trust=trust)
