"""Makes the router that the settings ask for, and says at the start what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from penstock.core.config import RouterSettings
from penstock.core.errors import ConfigError, closest
from penstock.core.types import Route
from penstock.embed import TextVectors
from penstock.router.automatic import AutomaticRouter
from penstock.router.budget import Budget
from penstock.router.cascade import Cascade
from penstock.router.classifier import Classifier, Grader, open_grader
from penstock.router.confidence import Calibration
from penstock.router.fixed import AUTO, FixedRouter
from penstock.router.policy import Policy, Tiers, fill
from penstock.router.protocol import Costs, NoCosts, Router
from penstock.router.rules import Rules

Vectors = Callable[[], TextVectors]  # opens them: they are shared, and need not be there where nobody reads texts


def make_router(
    settings: RouterSettings,
    routes: Mapping[str, Sequence[Route]],
    embeds: Collection[str] = (),
    vectors: Vectors | None = None,
    costs: Costs | None = None,
    calibrations: Mapping[str, Calibration] | None = None,
) -> Router:
    """`embeds` are the models that make vectors, `vectors` opens what a classifier reads texts by,
    `calibrations` how far a cascade trusts each model that may be asked first.

    Raises ConfigError for names that are not served, tiers that are missing and files that do not fit; MissingExtra.
    """
    if (most := settings.max_cost_usd) is not None and (most.is_nan() or most <= 0):
        raise ConfigError(f"router.max_cost_usd is {most}; it must be above 0", hint="leave it out for no limit")
    costs = costs or NoCosts()
    fixed = FixedRouter(routes, settings, embeds)
    if settings.policy == "fixed" or settings.mode == "off":
        return AutomaticRouter(settings, fixed, routes, costs)
    tiers = _tiers(settings, routes, embeds)
    return AutomaticRouter(settings, fixed, routes, costs, (_policy(settings, tiers, vectors, costs, calibrations or {}), tiers))


def _tiers(settings: RouterSettings, routes: Mapping[str, Sequence[Route]], embeds: Collection[str]) -> Tiers:
    named = f"the policy {settings.policy!r}"
    if settings.mode == "on" and (AUTO in settings.aliases or AUTO in routes):
        hint = "take it out of router.aliases, or call the model otherwise"
        raise ConfigError(f"{AUTO!r} is a name of its own and {named} decides for it", hint=hint)
    answering = [model for model in routes if model not in embeds]
    if not settings.tiers:
        hint = f'router.tiers = {{ simple = "…", complex = "…" }}; served here: {", ".join(answering)}'
        raise ConfigError(f"{named} needs router.tiers, the models that it chooses among", hint=hint)
    for tier, model in settings.tiers.items():
        if model not in answering:
            near = closest(model, answering)
            hint = f"did you mean {near!r}?" if near else f"served here: {', '.join(answering) or 'none'}"
            raise ConfigError(f"router.tiers.{tier} is {model!r}, which is not served", hint=hint)
    return fill(settings.tiers)


def _policy(
    settings: RouterSettings, tiers: Tiers, vectors: Vectors | None, costs: Costs, calibrations: Mapping[str, Calibration]
) -> Policy:
    if settings.policy == "cascade":
        if len(tiers.distinct) < 2:
            hint = 'router.tiers = { simple = "<a small model>", complex = "<a large model>" }'
            raise ConfigError("the policy 'cascade' needs two models, router.tiers names one", hint=hint)
        return Cascade(calibrations)
    if settings.policy == "rules":
        return Rules()
    grader = _grader(settings, tiers, vectors)
    if settings.policy == "budget":
        if settings.quality is None and settings.max_cost_usd is None:
            hint = "router.quality = 0.9 for the cheapest that is good enough, router.max_cost_usd = 0.01 for the best at that cost"
            raise ConfigError("the policy 'budget' needs something to keep to", hint=hint)
        return Budget(costs, grader)
    if grader is None:
        hint = "penstock router train FILE makes one from your own data"
        raise ConfigError("the policy 'classifier' needs router.classifier, a trained file", hint=hint)
    return Classifier(grader)


def _grader(settings: RouterSettings, tiers: Tiers, vectors: Vectors | None) -> Grader | None:
    if not settings.classifier:
        return None
    return open_grader(Path(settings.classifier).expanduser(), tiers, vectors)
