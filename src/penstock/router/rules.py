"""The policy "rules": points for what can be seen of a request, and a tier for the points.

    points  for
    +1      a text of more than 150 tokens, +1 more above 600, +1 more above 2,000
    +1      a context of more than 4,000 tokens
    +1      more than 6 turns of the user
    +2      code in the text
    +1      words of programming
    +1      a mark of maths, +1 more for 3 or more
    +1      demanding words ("analyse", "compare", "design", …), +1 more for 2 or more
    +2      words that ask for reasoning ("prove", "step by step", …), +1 more for 2 or more
    +1      tools that may be called, +1 more above 8
    +1      a format to keep to
    +1      a text that is not English
    −1      a short text (40 tokens) that asks for something plain ("what is", "translate", …)

    0 or less: simple   1 to 2: medium   3 to 4: complex   5 or more: reasoning

`reasoning_effort` high makes it "reasoning" whatever the points; a wanted quality of 0.95 or more goes one tier up, one of 0.5 or less one
tier down. The points are a judgement made by hand and no probability; they were fitted to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.core.types import Request
from penstock.router.policy import TIERS, Asked, Choice, Tier
from penstock.router.traits import Traits, traits_of

UP_FROM, DOWN_FROM = 0.95, 0.5  # wanted quality
LEAST: dict[Tier, int] = {"medium": 1, "complex": 3, "reasoning": 5}  # points


class Rules:
    """Knows nothing of the models but their order."""

    name = "rules"

    async def decide(self, asked: Asked) -> Choice:
        tier, why = tier_of(asked.request, asked.text, asked.quality)
        return Choice(model=asked.tiers.models[tier], tier=tier, why=why)


def tier_of(request: Request, text: str, quality: float | None = None) -> tuple[Tier, str]:
    """The tier of a request, and why in words."""
    found = list(points(traits_of(request, text)))
    total = sum(count for count, _ in found)
    place = sum(total >= least for least in LEAST.values())
    reasons = [reason for _, reason in found]
    if request.reasoning_effort in ("high", "xhigh"):
        place, reasons = len(TIERS) - 1, [f"reasoning_effort is {request.reasoning_effort}"]
    if quality is not None and quality >= UP_FROM and place < len(TIERS) - 1:
        place += 1
        reasons.append(f"one tier up for the quality {quality:g}")
    elif quality is not None and quality <= DOWN_FROM and place > 0:
        place -= 1
        reasons.append(f"one tier down for the quality {quality:g}")
    return TIERS[place], f"{TIERS[place]}: {', '.join(reasons) or 'a plain request'}"


def points(traits: Traits) -> Iterator[tuple[int, str]]:
    """What counts, each with its points and its name."""
    counted = (
        (sum(traits.tokens > least for least in (150, 600, 2000)), f"a text of {traits.tokens:,} tokens"),
        (int(traits.context_tokens > 4000), f"a context of {traits.context_tokens:,} tokens"),
        (int(traits.turns > 6), f"{traits.turns} turns"),
        (2 * min(traits.code, 1) + min(traits.coding, 1), "code" if traits.code else "speaks of code"),
        (min(traits.maths, 1) + (traits.maths >= 3), "maths"),
        (min(traits.demanding, 2), "a demanding task"),
        (2 * min(traits.reasoning, 1) + (traits.reasoning >= 2), "asks for reasoning"),
        (min(traits.tools, 1) + (traits.tools > 8), f"{traits.tools} tools"),
        (int(traits.formatted), "a format to keep to"),
        (int(traits.foreign), "not English"),
        (-1 if traits.plain and traits.tokens <= 40 else 0, "a short plain question"),
    )
    return ((count, reason) for count, reason in counted if count)
