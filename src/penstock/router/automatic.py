"""The router that chooses the model for "auto" by a policy; every other name is a matter of `fixed`.

    narrow   to the models that the key may use and that surely cost no more than the request may
    decide   the policy chooses among them
    stay     a conversation remains where its prefix is cached, unless moving pays (`sticky`)
    route    the chosen model's routes, then those of the tiers above, then below: tried in this order when calls fail

In shadow all of it is done and written down, and the request goes where `fixed` leads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal

from msgspec.structs import replace

from penstock.core.config import RouterSettings
from penstock.core.errors import Forbidden, InvalidRequest, PenstockError
from penstock.core.types import Decision, Escalation, Judge, Judgement, Request, Route, unheard
from penstock.router.fixed import AUTO, FixedRouter
from penstock.router.policy import Asked, Choice, Policy, Tiers
from penstock.router.protocol import Costs
from penstock.router.sticky import Sticky
from penstock.router.traits import text_of

log = logging.getLogger(__name__)


class AutomaticRouter:
    """`tiers` are those that `policy` chooses among; `policy` None leaves "auto" to `fixed`, and only costs are kept to."""

    def __init__(
        self,
        settings: RouterSettings,
        fixed: FixedRouter,
        routes: Mapping[str, Sequence[Route]],
        costs: Costs,
        chosen: tuple[Policy, Tiers] | None = None,
    ) -> None:
        self._settings = settings
        self._fixed = fixed
        self._routes = {model: tuple(candidates) for model, candidates in routes.items()}
        self._costs = costs
        self._chosen = chosen
        self._shadow = settings.mode == "shadow"
        self._sticky = Sticky(costs) if chosen and settings.sticky and not self._shadow else None

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._fixed.aliases

    async def choose(self, request: Request, judge: Judge = unheard) -> Decision:
        """Raises also `InvalidRequest` where every way to answer may cost more than the request may, and where a quality is
        wanted of a model that no policy chooses."""
        if self._chosen is None or request.model != AUTO or request.inputs is not None:
            if request.options.quality is not None:
                raise _no_choice(request.model)
            return await self._kept_to(request, await self._fixed.choose(request, judge))
        if not self._shadow:
            return await self._decide(request, judge, *self._chosen)
        fixed = await self._kept_to(request, await self._fixed.choose(request, judge))
        try:
            wished = await self._decide(request, judge, *self._chosen)
        except PenstockError as error:
            judge(Judgement(room="router", rule=self._chosen[0].name, action="refuse", why=error.message, shadow=True))
            return fixed
        if wished.escalation is not None and wished.route.model == fixed.route.model:
            return replace(fixed, escalation=replace(wished.escalation, shadow=True))  # its answer can be weighed at no loss
        return fixed

    def took(self, request: Request, route: Route) -> None:
        if self._sticky is not None and request.model == AUTO and request.inputs is None:
            self._sticky.took(request, route)

    async def _decide(self, request: Request, judge: Judge, policy: Policy, tiers: Tiers) -> Decision:
        started_s = time.monotonic()
        asked = await self._narrow(request, tiers)
        choice = await policy.decide(asked)
        if self._sticky is not None:
            choice = self._sticky.weigh(asked, choice)
        if choice.then is not None and not await self._covers(asked, choice.model, choice.then):
            why = f"{choice.why}; not escalated, since both answers may cost more than ${asked.max_cost_usd}"
            choice = replace(choice, then=None, why=why)
        decision = self._decision(choice, asked)
        if asked.max_cost_usd is not None and not await self._fits(request, decision, asked.max_cost_usd):
            routes = asked.routes[choice.model]  # which keep to it, when there are no others that may have to be paid, too
            decision = replace(decision, candidates=routes, scores=decision.scores[: len(routes)])
        took_s = time.monotonic() - started_s
        judgement = Judgement(
            room="router", rule=policy.name, action=choice.model, why=choice.why, score=choice.score, shadow=self._shadow, took_s=took_s
        )
        judge(judgement)
        return decision

    async def _narrow(self, request: Request, tiers: Tiers) -> Asked:
        models = self._in_scope(request, tiers)
        limit, quality = request.options.max_cost_usd, request.options.quality
        if limit is None:
            limit = self._settings.max_cost_usd
        if limit is not None:
            decisions = {model: _to(self._routes[model]) for model in models}
            models = tuple([model for model, decision in decisions.items() if await self._fits(request, decision, limit)])
            if not models:
                raise _too_dear(limit, tuple(decisions))
        return Asked(
            request=request,
            text=text_of(request),
            tiers=tiers.only(models),
            routes={model: self._routes[model] for model in models},
            quality=self._settings.quality if quality is None else quality,
            max_cost_usd=limit,
        )

    def _in_scope(self, request: Request, tiers: Tiers) -> tuple[str, ...]:
        scope = request.principal.models
        if scope is None or AUTO in scope:
            return tiers.distinct
        within = tuple(model for model in tiers.distinct if model in scope)
        if not within:
            hint = f"it may use: {', '.join(scope) or 'none'}"
            raise Forbidden(f"this key may use no model of the tiers that {AUTO!r} chooses from", hint=hint, param="model")
        return within

    def _decision(self, choice: Choice, asked: Asked) -> Decision:
        order = asked.tiers.distinct
        place = order.index(choice.model)
        models = (choice.model, *order[place + 1 :], *reversed(order[:place])) if choice.then is None else (choice.model,)
        candidates = tuple(route for model in models for route in asked.routes[model])
        known = all(model in choice.scores for model in models)
        decision = Decision(
            route=candidates[0],
            candidates=candidates,
            scores=tuple(choice.scores[route.model] for route in candidates) if known else (),
            why=choice.why,
            tier=choice.tier,
        )
        if choice.then is None:
            return decision
        why = f"the answer of {choice.model!r} was less than {choice.trust:.0%} likely to be right"
        return replace(decision, escalation=Escalation(decision=_to(asked.routes[choice.then], why), trust=choice.trust))

    async def _covers(self, asked: Asked, first: str, then: str) -> bool:
        """Whether the first answer and another one together keep to the limit; where the second fails, the first may be asked again."""
        if asked.max_cost_usd is None:
            return True
        costs = [await self._costs.worst(asked.request, _to(asked.routes[model])) for model in (first, then)]
        known = [cost for cost in costs if cost is not None]
        return len(known) == len(costs) and known[0] + max(known) <= asked.max_cost_usd

    async def _kept_to(self, request: Request, decision: Decision) -> Decision:
        """What is left of a decision of `fixed` within the cost that the request may have; where that is nothing, whoever
        reserves the cost refuses a request's own limit."""
        limit = request.options.max_cost_usd
        by_settings = limit is None and request.model == AUTO and not self._shadow
        if by_settings:
            limit = self._settings.max_cost_usd
        if limit is None or await self._fits(request, decision, limit):
            return decision
        within = tuple([route for route in decision.candidates if await self._fits(request, _to((route,)), limit)])
        if within:
            return replace(decision, route=within[0], candidates=within, why=f"{decision.why}; only what surely costs at most ${limit}")
        if by_settings:
            raise _too_dear(limit, tuple(dict.fromkeys(route.model for route in decision.candidates)))
        return decision

    async def _fits(self, request: Request, decision: Decision, limit: Decimal) -> bool:
        worst = await self._costs.worst(request, decision)
        return worst is not None and worst <= limit


def _to(routes: tuple[Route, ...], why: str = "") -> Decision:
    return Decision(route=routes[0], candidates=routes, why=why)


def _no_choice(model: str) -> InvalidRequest:
    hint = f"leave it out, or ask for {AUTO!r} where the operator has set router.policy"
    message = f"a quality chooses among models, and {model!r} leaves no choice here"
    return InvalidRequest(message, hint=hint, param="penstock.quality")


def _too_dear(limit: Decimal, models: tuple[str, ...]) -> InvalidRequest:
    hint = "raise it, lower max_tokens, or see that prices are known (penstock prices)"
    message = f"no answer of {', '.join(map(repr, models))} is sure to cost at most ${limit}"
    return InvalidRequest(message, hint=hint, param="penstock.max_cost_usd")
