"""The policy "cascade": ask the lowest tier's model first, and the highest tier's where the answer cannot be trusted.

How far the first answer has to be trusted for the quality wanted, its model's calibration knows (Chen et al. 2023, "FrugalGPT").
This policy only says so; whoever calls the models asks them and weighs the answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.router.confidence import NEVER, Calibration
from penstock.router.policy import Asked, Choice

DEFAULT_TRUST = 0.8  # where neither a calibration nor a quality says another


class Cascade:
    """First the lowest, then the highest model that the request may go to; where they are one, only that."""

    name = "cascade"

    def __init__(self, calibrations: Mapping[str, Calibration] | None = None) -> None:
        self._calibrations = calibrations or {}

    async def decide(self, asked: Asked) -> Choice:
        first, *_, last = (*asked.tiers.distinct, asked.tiers.distinct[-1])
        tier = asked.tiers.lowest(first)
        if first == last:
            return Choice(model=first, tier=tier, why=f"{first!r} is the only model that this request may go to")
        trust = self._trust(first, asked.quality)
        if trust >= NEVER:
            return Choice(model=last, tier=asked.tiers.lowest(last), why=f"no answer of {first!r} is trusted for the quality wanted")
        why = f"{first!r} first; {last!r} where its answer is less than {trust:.0%} likely to be right"
        return Choice(model=first, tier=tier, why=why, then=last, trust=trust)

    def _trust(self, model: str, quality: float | None) -> float:
        calibration = self._calibrations.get(model)
        if calibration is not None:
            return calibration.trust_for(quality)
        return DEFAULT_TRUST if quality is None else quality
