"""Requests for "auto", prices for a table, and what a router made of them."""

from __future__ import annotations

from decimal import Decimal

from penstock.core.config import RouterSettings
from penstock.core.types import Decision, Judgement, Message, Options, Principal, Request, Route, Usage
from penstock.router import Costs, Router, make_router

SMALL, MIDDLE, LARGE = (Route(upstream="api", model=model) for model in ("small", "middle", "large"))
ROUTES = {route.model: (route,) for route in (SMALL, MIDDLE, LARGE)}
THREE = {"simple": "small", "medium": "middle", "complex": "large"}
TWO = {"simple": "small", "complex": "large"}


class Prices:
    """Dollars per token by model: of the prompt, of a cached prompt token, of the answer. Answers have at most `max_tokens`."""

    def __init__(self, **prices: tuple[str, str, str]) -> None:
        self.prices = {model: tuple(map(Decimal, rates)) for model, rates in prices.items()}

    async def worst(self, request: Request, decision: Decision) -> Decimal | None:
        usage = Usage(prompt_tokens=100, completion_tokens=request.sampling.max_tokens or 1000)
        costs = [self.expected(route, usage) for route in decision.candidates]
        return None if None in costs else max(cost for cost in costs if cost is not None)

    def expected(self, route: Route, usage: Usage) -> Decimal | None:
        if route.model not in self.prices:
            return None
        prompt, cached, completion = self.prices[route.model]
        return (usage.prompt_tokens - usage.cached_tokens) * prompt + usage.cached_tokens * cached + usage.completion_tokens * completion


def router(costs: Costs | None = None, **settings: object) -> Router:
    return make_router(RouterSettings(**{"tiers": THREE, **settings}), ROUTES, costs=costs)  # type: ignore[arg-type]


def ask(text: str = "Hi", *, models: tuple[str, ...] | None = None, options: Options | None = None, **fields: object) -> Request:
    known = {"id": "r", "model": "auto", "messages": (Message(role="user", content=text),)}
    return Request(**{**known, "principal": Principal(models=models), "options": options or Options(), **fields})  # type: ignore[arg-type]


async def decided(router: Router, request: Request) -> tuple[Decision, Judgement]:
    """The decision and the one judgement that was noted of it."""
    judgements: list[Judgement] = []
    decision = await router.choose(request, judgements.append)
    (judgement,) = judgements
    return decision, judgement
