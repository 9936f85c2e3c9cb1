"""What a policy is asked and what it answers, and the mapping of tiers to models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal, Protocol

from msgspec import Struct

from penstock.core.types import Request, Route

Tier = Literal["simple", "medium", "complex", "reasoning"]
TIERS: tuple[Tier, ...] = ("simple", "medium", "complex", "reasoning")


class Tiers(Struct, frozen=True):
    """The model of each tier, lowest first; none is missing."""

    models: Mapping[Tier, str]

    @property
    def distinct(self) -> tuple[str, ...]:
        """Each model once, in the order of the lowest tier that it serves."""
        return tuple(dict.fromkeys(self.models[tier] for tier in TIERS))

    def lowest(self, model: str) -> Tier:
        """The lowest tier that `model` serves."""
        return next(tier for tier in TIERS if self.models[tier] == model)

    def only(self, models: Sequence[str]) -> Tiers:
        """The tiers with these models alone, of which there is one at least: another's work goes to the next above, else below."""
        return fill({tier: model for tier, model in self.models.items() if model in models})


class Asked(Struct, frozen=True, kw_only=True):
    """A request for "auto" and the models that it may go to: those of the key's scope that keep to the request's cost."""

    request: Request
    text: str  # the prompt, or the last turn of the user; "" where only token ids are known
    tiers: Tiers
    routes: Mapping[str, tuple[Route, ...]]  # of each model; none is empty
    quality: float | None = None  # least probability that the answer is as good as the best model's
    max_cost_usd: Decimal | None = None


class Choice(Struct, frozen=True, kw_only=True):
    """A policy's answer. `scores` are probabilities by model, `score` the chosen one's own.

    `then` is the model to ask where the first one's answer is less likely to be right than `trust`.
    """

    model: str
    tier: Tier
    why: str
    scores: Mapping[str, float] = {}
    then: str | None = None
    trust: float = 0.0

    @property
    def score(self) -> float | None:
        return self.scores.get(self.model)


class Policy(Protocol):
    """Chooses one of the models of `asked.tiers`."""

    @property
    def name(self) -> str:
        """As settings and judgements call it."""

    async def decide(self, asked: Asked) -> Choice:
        """Never fails for what a client may send: a policy that cannot tell falls back and says so."""


def fill(given: Mapping[Tier, str]) -> Tiers:
    """The tiers, of which one at least is given: a missing one is the next above, and above the highest that one."""
    models: dict[Tier, str] = {}
    above = next(given[tier] for tier in reversed(TIERS) if tier in given)
    for tier in reversed(TIERS):
        models[tier] = above = given.get(tier, above)
    return Tiers({tier: models[tier] for tier in TIERS})
