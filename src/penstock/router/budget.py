"""The policy "budget": one knob, by prices.

With `quality` the cheapest model that reaches it, by what this request will probably cost; with `max_cost_usd` alone the best of those that
surely cost no more (the limit itself is kept to before any policy is asked). What is good is said by the classifier's
file where one is set, else by the rules, whose tiers are taken for good enough.
"""

from __future__ import annotations

from decimal import Decimal

from penstock.core.types import Usage
from penstock.router.classifier import DEFAULT_QUALITY, Grader, Judged, chosen
from penstock.router.policy import TIERS, Asked, Choice
from penstock.router.protocol import Costs
from penstock.router.rules import tier_of
from penstock.router.sticky import ANSWER_TOKENS
from penstock.router.traits import prompt_tokens


class Budget:
    """`grader` None: the rules say what is good."""

    name = "budget"

    def __init__(self, costs: Costs, grader: Grader | None) -> None:
        self._costs = costs
        self._grader = grader

    async def decide(self, asked: Asked) -> Choice:
        judged = Judged(strange="no classifier is set") if self._grader is None else await self._grader.grade(asked.text)
        if asked.quality is None and asked.max_cost_usd is not None:
            return self._best(asked, judged)
        order, told = self._cheapest_first(asked)
        quality = DEFAULT_QUALITY if asked.quality is None else asked.quality
        if judged.strange:
            return self._good_by_rules(asked, order, f"{judged.strange}; {told}")
        choice = chosen(asked, judged, order, quality)
        return Choice(model=choice.model, tier=choice.tier, why=f"{choice.why}; {told}", scores=choice.scores)

    def _best(self, asked: Asked, judged: Judged) -> Choice:
        limit = f"surely costs at most ${asked.max_cost_usd}"
        if judged.strange:
            model = asked.tiers.distinct[-1]
            return Choice(model=model, tier=asked.tiers.lowest(model), why=f"{model!r} is of the highest tier that {limit}")
        scores = {model: judged.as_good[model] for model in asked.tiers.distinct}
        model = max(asked.tiers.distinct, key=lambda model: scores[model])
        why = f"{model!r} is most probably as good as any ({scores[model]:.0%}) of what {limit}"
        return Choice(model=model, tier=asked.tiers.lowest(model), why=why, scores=scores)

    def _good_by_rules(self, asked: Asked, order: tuple[str, ...], told: str) -> Choice:
        tier, why = tier_of(asked.request, asked.text, asked.quality)
        enough = {asked.tiers.models[above] for above in TIERS[TIERS.index(tier) :]}
        model = next(model for model in order if model in enough)
        return Choice(model=model, tier=tier, why=f"{model!r} is the cheapest for {why} ({told})")

    def _cheapest_first(self, asked: Asked) -> tuple[tuple[str, ...], str]:
        """The models by what this request will probably cost, and how that is known."""
        answer = min(asked.request.sampling.max_tokens or ANSWER_TOKENS, ANSWER_TOKENS)
        usage = Usage(prompt_tokens=prompt_tokens(asked.request), completion_tokens=answer)
        costs = {model: self._costs.expected(routes[0], usage) for model, routes in asked.routes.items()}
        known: dict[str, Decimal] = {model: cost for model, cost in costs.items() if cost is not None}
        if len(known) < len(costs):
            return asked.tiers.distinct, "not all prices are known, so tiers are taken for their order"
        order = tuple(sorted(asked.tiers.distinct, key=lambda model: known[model]))
        return order, "about " + ", ".join(f"${known[model]:f} for {model!r}" for model in order)
