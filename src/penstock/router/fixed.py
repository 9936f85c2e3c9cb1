"""The router that takes the client at its word: each name leads to its routes.

A name is an alias of the settings, "auto", or a model, and is looked for in that order: an alias may stand before a model of
its own name, to add others after it. A key that is scoped to some models may ask for those names, and for an alias that
stands for one of them: it gets the routes that are within its scope.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from penstock.core.config import RouterSettings
from penstock.core.errors import ConfigError, Forbidden, ModelNotFound, closest
from penstock.core.types import Decision, Judge, Request, Route, unheard

AUTO = "auto"


class FixedRouter:
    """Routes by the name asked for. A model's routes are tried in the order given; none is empty."""

    def __init__(self, routes: Mapping[str, Sequence[Route]], settings: RouterSettings | None = None, embeds: Collection[str] = ()) -> None:
        """`embeds` are the models that make vectors. Raises ConfigError for an alias of a model that is not served."""
        settings = settings or RouterSettings()
        models = {model: tuple(candidates) for model, candidates in routes.items()}
        named = {name: _listed(models, name, given) for name, given in _named(models, settings, embeds).items()}
        self._decisions = {model: _serves(model, candidates) for model, candidates in models.items()}
        self._decisions |= {name: _stands_for(name, targets, models) for name, targets in named.items()}
        vectors = next((model for model in models if model in embeds), None)
        self._vectors = None if AUTO in settings.aliases or vectors is None else _stands_for(AUTO, [vectors], models)
        self._aliases = {name: targets[0] for name, targets in named.items() if name not in models}

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    async def choose(self, request: Request, judge: Judge = unheard) -> Decision:
        decision = self._decisions.get(request.model)
        if request.inputs is not None and request.model == AUTO and AUTO in self._aliases:
            decision = self._vectors or decision
        scope = request.principal.models
        if decision is None:
            raise self._unknown(request.model, scope)
        if scope is None or request.model in scope:
            return decision
        return self._scoped(request.model, decision, scope)

    def took(self, request: Request, route: Route) -> None:
        pass

    def _scoped(self, name: str, decision: Decision, scope: Sequence[str]) -> Decision:
        """What is left of a decision for a key that may only use some models."""
        within = tuple(route for route in decision.candidates if route.model in scope)
        if not within:
            hint = f"it may use: {', '.join(scope) or 'none'}"
            raise Forbidden(f"this key may not use the model {name!r}", hint=hint, param="model")
        if len(within) == len(decision.candidates):
            return decision
        return Decision(route=within[0], candidates=within, why=f"{decision.why}; only models that the key may use")

    def _unknown(self, model: str, scope: Sequence[str] | None) -> ModelNotFound:
        known = sorted(self._decisions if scope is None else self._decisions.keys() & set(scope))
        near = closest(model, known)
        served = ", ".join(known) or "none"
        hint = f"did you mean {near!r}? Served here: {served}" if near else f"served here: {served}"
        return ModelNotFound(f"the model {model!r} does not exist", hint=hint, param="model")


def _named(models: Collection[str], settings: RouterSettings, embeds: Collection[str]) -> dict[str, str | list[str]]:
    """The names that stand for models; "auto" is one of them wherever anything is served and nothing else is called so."""
    first = settings.auto or next((model for model in models if model not in embeds), "")
    automatic = {AUTO: first} if first and (settings.auto or AUTO not in models) else {}
    return {**automatic, **settings.aliases}


def _listed(models: Mapping[str, object], name: str, given: str | list[str]) -> tuple[str, ...]:
    targets = tuple(dict.fromkeys([given] if isinstance(given, str) else given))
    if not targets:
        raise ConfigError(f"the alias {name!r} stands for no model", hint=f"served here: {', '.join(models)}")
    for target in targets:
        if target not in models:
            near = closest(target, models)
            hint = f"did you mean {near!r}?" if near else f"served here: {', '.join(models) or 'none'}"
            raise ConfigError(f"the alias {name!r} stands for {target!r}, which is not served", hint=hint)
    return targets


def _serves(model: str, candidates: tuple[Route, ...]) -> Decision:
    return Decision(route=candidates[0], candidates=candidates, why=f"serves {model!r}")


def _stands_for(name: str, targets: Sequence[str], models: Mapping[str, tuple[Route, ...]]) -> Decision:
    candidates = tuple(route for target in targets for route in models[target])
    return Decision(route=candidates[0], candidates=candidates, why=f"{name!r} stands for {', then '.join(map(repr, targets))}")
