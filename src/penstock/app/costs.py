"""What answering may cost, for the router: the dispatch knows the tokens, the price book the dollars."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from penstock.core.errors import InvalidRequest
from penstock.core.types import Decision, Request, Route, Usage
from penstock.meter import Pricing
from penstock.upstream import Source


class DispatchCosts(Struct, frozen=True):
    """The router's `Costs`."""

    dispatch: Source
    pricing: Pricing

    async def worst(self, request: Request, decision: Decision) -> Decimal | None:
        try:
            most = await self.dispatch.most(request, decision)
        except InvalidRequest:  # nothing bounds the answer
            return None
        routes = dict.fromkeys((decision.route, *decision.candidates))
        costs = [self.pricing.worst(route, most.prompt_tokens, most.completion_tokens) for route in routes]
        known = [cost for cost in costs if cost is not None]
        return max(known) * most.calls if len(known) == len(costs) else None

    def expected(self, route: Route, usage: Usage) -> Decimal | None:
        return self.pricing.cost(route, usage, None)
