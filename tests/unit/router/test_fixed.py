"""Which routes a name leads to, for whom, and what is said of it."""

from __future__ import annotations

import pytest

from penstock.core.config import RouterSettings
from penstock.core.errors import ConfigError, Forbidden, ModelNotFound
from penstock.core.types import Principal, Request, Route
from penstock.router import FixedRouter

HERE, THERE = Route(upstream="here", model="mini"), Route(upstream="there", model="mini")
LARGE = Route(upstream="api", model="large")
ROUTES = {"mini": (HERE, THERE), "large": (LARGE,)}


def router(**settings: object) -> FixedRouter:
    return FixedRouter(ROUTES, RouterSettings(**settings))


def ask(model: str, *models: str) -> Request:
    return Request(id="r", model=model, prompt="Hi", principal=Principal(models=models or None))


async def test_a_model_leads_to_its_routes_in_order() -> None:
    decision = await router().choose(ask("mini"))
    assert (decision.route, decision.candidates) == (HERE, (HERE, THERE))
    assert decision.why == "serves 'mini'"


async def test_an_alias_of_several_models_is_tried_in_its_order_and_says_so() -> None:
    decision = await router(aliases={"best": ["large", "mini"]}).choose(ask("best"))
    assert (decision.route, decision.candidates) == (LARGE, (LARGE, HERE, THERE))
    assert decision.why == "'best' stands for 'large', then 'mini'"


async def test_an_alias_may_stand_before_a_model_of_its_own_name() -> None:
    fixed = router(aliases={"large": ["large", "mini"]})
    assert (await fixed.choose(ask("large"))).candidates == (LARGE, HERE, THERE)
    assert "large" not in fixed.aliases  # its card is the model's own


@pytest.mark.parametrize(("settings", "route"), [({}, HERE), ({"auto": "large"}, LARGE)])
async def test_auto_is_the_first_model_unless_another_is_named(settings: dict[str, object], route: Route) -> None:
    fixed = router(**settings)
    assert (await fixed.choose(ask("auto"))).route == route
    assert fixed.aliases["auto"] == route.model


async def test_auto_is_a_model_that_does_what_is_asked() -> None:
    fixed = FixedRouter({"mini": (HERE,), "large": (LARGE,)}, RouterSettings(), embeds={"mini"})
    assert (await fixed.choose(ask("auto"))).route == LARGE
    assert (await fixed.choose(Request(id="r", model="auto", inputs=("Hi",)))).route == HERE


async def test_an_alias_of_what_is_not_served_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="did you mean 'large'"):
        router(aliases={"best": ["largo"]})
    with pytest.raises(ConfigError, match="stands for no model"):
        router(aliases={"best": []})


async def test_a_key_gets_only_models_of_its_scope() -> None:
    assert (await router().choose(ask("mini", "mini"))).route == HERE
    with pytest.raises(Forbidden) as refused:
        await router().choose(ask("large", "mini"))
    assert "it may use: mini" in str(refused.value)
    assert refused.value.failure().param == "model"


@pytest.mark.feature("keys", "aliases")
async def test_an_alias_gives_a_scoped_key_what_its_scope_leaves() -> None:
    fixed = router(aliases={"best": ["large", "mini"]})
    decision = await fixed.choose(ask("best", "mini"))
    assert decision.candidates == (HERE, THERE)
    assert "only models that the key may use" in decision.why
    assert (await fixed.choose(ask("best", "best"))).candidates == (LARGE, HERE, THERE)  # the alias itself is in scope
    with pytest.raises(Forbidden):
        await fixed.choose(ask("large", "best"))


async def test_an_unknown_model_tells_a_scoped_key_only_of_its_own() -> None:
    with pytest.raises(ModelNotFound) as unknown:
        await router().choose(ask("larg", "mini"))
    assert "large" not in (unknown.value.hint or "")
    with pytest.raises(ModelNotFound, match="did you mean 'large'"):
        await router().choose(ask("larg"))
