"""The policy "cascade": ask the lowest tier's model first, and the highest tier's where the answer cannot be trusted.

The quality wanted is the least calibrated probability that the first answer is right (Chen et al. 2023, "FrugalGPT"). This policy
only says so; whoever calls the models asks them and weighs the answer.
"""

from __future__ import annotations

from penstock.router.policy import Asked, Choice

DEFAULT_TRUST = 0.8  # where no quality is set


class Cascade:
    """First the lowest, then the highest model that the request may go to; where they are one, only that."""

    name = "cascade"

    async def decide(self, asked: Asked) -> Choice:
        first, *_, last = (*asked.tiers.distinct, asked.tiers.distinct[-1])
        tier = asked.tiers.lowest(first)
        if first == last:
            return Choice(model=first, tier=tier, why=f"{first!r} is the only model that this request may go to")
        trust = DEFAULT_TRUST if asked.quality is None else asked.quality
        why = f"{first!r} first; {last!r} where its answer is less than {trust:.0%} likely to be right"
        return Choice(model=first, tier=tier, why=why, then=last, trust=trust)
