"""Where "auto" leads under each policy, for whom, at what cost, and what is said of it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from penstock.core.config import RouterSettings
from penstock.core.errors import ConfigError, Forbidden, InvalidRequest
from penstock.core.types import Judgement, Message, Options, Principal, Request, Sampling, Tool
from penstock.router import make_router
from tests.unit.router.asking import LARGE, MIDDLE, ROUTES, SMALL, TWO, Prices, ask, decided, router

PROOF = "Prove step by step that the equation x^2 = 2 has no rational solution, and derive the integral of the function."
CODE = "Debug this:\n```python\ndef add(a, b):\n    return a - b\n```"
PRICES = Prices(
    small=("0.000001", "0.000001", "0.000001"), middle=("0.00001", "0.000001", "0.00001"), large=("0.0001", "0.00001", "0.0001")
)


@pytest.mark.parametrize(
    ("request_", "tier", "model"),
    [
        (ask("Hi"), "simple", "small"),
        (ask("What is the capital of France?"), "simple", "small"),
        (ask("Analyse and compare the two treaties"), "medium", "middle"),
        (ask(CODE), "complex", "large"),
        (ask(PROOF), "reasoning", "large"),  # the tier "reasoning" is missing, and nothing is above it
        (ask("Hi", tools=(Tool(name="search"),)), "simple", "small"),
        (ask("Book it", tools=(Tool(name="search"),)), "medium", "middle"),
        (ask("Hi", reasoning_effort="high"), "reasoning", "large"),
        (ask("Bitte erkläre mir, warum der Himmel am Abend rot und nicht mehr blau erscheint"), "medium", "middle"),
        (ask("word " * 900), "complex", "large"),
        (ask(model="auto", messages=None, prompt_token_ids=tuple(range(700))), "medium", "middle"),
    ],
)
async def test_rules_give_a_request_its_tier(request_: Request, tier: str, model: str) -> None:
    decision, judgement = await decided(router(policy="rules"), request_)
    assert (decision.tier, decision.route.model) == (tier, model)
    assert (judgement.room, judgement.rule, judgement.action, judgement.shadow) == ("router", "rules", model, False)


async def test_rules_say_why_in_words() -> None:
    decision, judgement = await decided(router(policy="rules"), ask(CODE))
    assert decision.why == judgement.why == "complex: code"


async def test_a_wanted_quality_moves_the_tier() -> None:
    rules = router(policy="rules")
    up, _ = await decided(rules, ask("Hi", options=Options(quality=0.99)))
    assert (up.tier, up.route) == ("medium", MIDDLE)
    assert "one tier up for the quality 0.99" in up.why
    down, _ = await decided(router(policy="rules", quality=0.5), ask(CODE))
    assert (down.tier, down.route) == ("medium", MIDDLE)


async def test_a_missing_tier_is_the_next_above() -> None:
    decision, _ = await decided(router(policy="rules", tiers={"complex": "middle", "reasoning": "large"}), ask("Hi"))
    assert (decision.tier, decision.route) == ("simple", MIDDLE)


async def test_models_of_other_tiers_are_tried_when_the_chosen_one_fails_those_above_first() -> None:
    decision, _ = await decided(router(policy="rules"), ask("Analyse and compare the two treaties"))
    assert decision.candidates == (MIDDLE, LARGE, SMALL)


@pytest.mark.feature("keys", "routing policies")
async def test_a_policy_chooses_within_the_scope_of_the_key() -> None:
    rules = router(policy="rules")
    decision, _ = await decided(rules, ask(PROOF, models=("small", "middle")))
    assert decision.candidates == (MIDDLE, SMALL)
    everything, _ = await decided(rules, ask(PROOF, models=("auto",)))
    assert everything.route == LARGE
    with pytest.raises(Forbidden, match="it may use: other"):
        await rules.choose(ask(models=("other",)), lambda _: None)


async def test_a_named_model_is_no_matter_of_the_policy() -> None:
    judgements: list[Judgement] = []
    decision = await router(policy="rules").choose(ask(PROOF, model="small"), judgements.append)
    assert (decision.route, decision.why, judgements) == (SMALL, "serves 'small'", [])


async def test_texts_to_embed_go_where_fixed_leads() -> None:
    rules = make_router(RouterSettings(policy="rules", tiers=TWO), {**ROUTES, "vectors": (MIDDLE,)}, embeds={"vectors"})
    assert (await rules.choose(Request(id="r", model="auto", inputs=("Hi",)), lambda _: None)).route == MIDDLE


async def test_a_cascade_asks_the_small_model_first_and_says_when_the_large_one() -> None:
    decision, judgement = await decided(router(policy="cascade", quality=0.9), ask(PROOF))
    assert (decision.route, decision.candidates) == (SMALL, (SMALL,))
    assert decision.escalation is not None
    assert (decision.escalation.decision.route, decision.escalation.trust, decision.escalation.shadow) == (LARGE, 0.9, False)
    assert judgement.why == "'small' first; 'large' where its answer is less than 90% likely to be right"
    own, _ = await decided(router(policy="cascade"), ask(options=Options(quality=0.6)))
    assert own.escalation is not None
    assert own.escalation.trust == 0.6


async def test_a_cascade_of_one_model_within_the_scope_is_that_model() -> None:
    decision, _ = await decided(router(policy="cascade"), ask(models=("large",)))
    assert (decision.route, decision.escalation) == (LARGE, None)


async def test_shadow_changes_nothing_and_writes_down_what_would_have_been() -> None:
    decision, judgement = await decided(router(policy="rules", mode="shadow", auto="middle"), ask(PROOF))
    assert (decision.route, decision.why) == (MIDDLE, "'auto' stands for 'middle'")
    assert (judgement.action, judgement.shadow) == ("large", True)


async def test_a_cascade_in_shadow_weighs_the_small_models_answer_where_it_is_given_anyway() -> None:
    weighed, _ = await decided(router(policy="cascade", mode="shadow", auto="small"), ask())
    assert weighed.escalation is not None
    assert weighed.escalation.shadow
    other, judgement = await decided(router(policy="cascade", mode="shadow", auto="large"), ask())
    assert (other.route, other.escalation, judgement.action) == (LARGE, None, "small")


async def test_what_a_policy_would_refuse_in_shadow_is_only_written_down() -> None:
    shadow = router(PRICES, policy="rules", mode="shadow", max_cost_usd=Decimal("0.0000001"))
    decision, judgement = await decided(shadow, ask())
    assert (decision.route, judgement.action, judgement.shadow) == (SMALL, "refuse", True)


@pytest.mark.parametrize(("limit", "model"), [("1", "large"), ("0.02", "middle"), ("0.002", "small")])
async def test_a_request_goes_only_where_it_surely_costs_no_more_than_it_may(limit: str, model: str) -> None:
    decision, _ = await decided(router(PRICES, policy="rules"), ask(PROOF, options=Options(max_cost_usd=Decimal(limit))))
    assert decision.route.model == model
    by_settings, _ = await decided(router(PRICES, policy="rules", max_cost_usd=Decimal(limit)), ask(PROOF))
    assert by_settings.route.model == model


async def test_a_cost_that_nothing_keeps_to_is_refused_with_what_to_do() -> None:
    tiny = Decimal("0.0000001")
    with pytest.raises(InvalidRequest, match="'small', 'middle', 'large' is sure to cost at most") as refused:
        await router(PRICES, policy="rules").choose(ask(options=Options(max_cost_usd=tiny)), lambda _: None)
    assert refused.value.failure().param == "penstock.max_cost_usd"
    with pytest.raises(InvalidRequest, match="see that prices are known"):
        await router(policy="fixed", max_cost_usd=Decimal(100)).choose(ask(), lambda _: None)


@pytest.mark.parametrize(("policy", "model"), [("fixed", "auto"), ("fixed", "large"), ("rules", "large")])
async def test_a_quality_that_nobody_chooses_by_is_refused_by_name(policy: str, model: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await router(policy=policy).choose(ask(model=model, options=Options(quality=0.9)), lambda _: None)
    assert refused.value.failure().param == "penstock.quality"


async def test_an_alias_of_several_models_leads_to_those_that_keep_to_the_cost() -> None:
    fixed = router(PRICES, aliases={"best": ["large", "small"]})
    decision = await fixed.choose(ask(model="best", options=Options(max_cost_usd=Decimal("0.01"))), lambda _: None)
    assert decision.candidates == (SMALL,)
    assert "only what surely costs at most $0.01" in decision.why


async def test_a_cascade_escalates_only_where_both_answers_keep_to_the_cost() -> None:
    cascade = router(PRICES, policy="cascade", tiers=TWO)
    both, _ = await decided(cascade, ask(sampling=Sampling(max_tokens=100), options=Options(max_cost_usd=Decimal("0.0203"))))
    assert both.escalation is not None
    one, _ = await decided(cascade, ask(sampling=Sampling(max_tokens=100), options=Options(max_cost_usd=Decimal("0.0201"))))
    assert one.escalation is None
    assert "not escalated" in one.why


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"policy": "rules", "tiers": {}}, "needs router.tiers"),
        ({"policy": "rules", "tiers": {"simple": "smal"}}, "router.tiers.simple is 'smal', which is not served .did you mean 'small'"),
        ({"policy": "rules", "aliases": {"auto": "small"}}, "'auto' is a name of its own"),
        ({"policy": "cascade", "tiers": {"simple": "small", "complex": "small"}}, "needs two models"),
        ({"max_cost_usd": Decimal(-1)}, "router.max_cost_usd is -1; it must be above 0"),
        ({"max_cost_usd": Decimal("NaN")}, "router.max_cost_usd is NaN; it must be above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        router(**settings)


async def test_a_policy_that_is_off_is_fixed() -> None:
    judgements: list[Judgement] = []
    decision = await router(policy="rules", mode="off", tiers={}).choose(ask(PROOF), judgements.append)
    assert (decision.route, judgements) == (SMALL, [])


def conversation(*turns: str, tenant: str = "") -> Request:
    """A chat of the user's turns, each of them but the last answered."""
    messages: list[Message] = [Message(role="system", content="Be kind.")]
    for turn in turns:
        messages += [Message(role="user", content=turn), Message(role="assistant", content="Well. " * 100)]
    return ask(messages=tuple(messages[:-1]), principal=Principal(tenant=tenant), model="auto")


async def test_a_conversation_stays_while_its_cached_prefix_is_worth_more_than_moving_saves() -> None:
    rules = router(PRICES, policy="rules")
    first = conversation(PROOF)
    decision, _ = await decided(rules, first)
    assert decision.route == LARGE
    rules.took(first, decision.route)
    # 'middle' reads 20,000 tokens anew at a tenth of the price: as much as reading them cached from 'large'
    stays, judgement = await decided(rules, conversation(PROOF, "Thanks"))
    assert (stays.route, judgement.action) == (SMALL, "small")
    near = Prices(small=("0.0000009", "0.0000009", "0.0000010"), large=("0.000001", "0.0000001", "0.000001"), middle=("1", "1", "1"))
    sticky = router(near, policy="rules", tiers=TWO)
    long = conversation("Prove step by step. " * 400)
    sticky.took(long, LARGE)
    stays, judgement = await decided(sticky, conversation("Prove step by step. " * 400, "Thanks"))
    assert stays.route == LARGE
    assert "the conversation stays with 'large', which has 2,0" in judgement.why
    other, _ = await decided(sticky, conversation("Prove step by step. " * 400, "Thanks", tenant="other"))
    assert other.route == SMALL  # another tenant's conversation has no prefix here


async def test_a_conversation_moves_up_when_it_gets_harder() -> None:
    rules = router(PRICES, policy="rules")
    rules.took(conversation("Hi"), SMALL)
    decision, _ = await decided(rules, conversation("Hi", PROOF))
    assert decision.route == LARGE


async def test_without_prices_the_prefix_is_weighed_against_what_the_turn_adds() -> None:
    rules = router(policy="rules")
    short, long = "Prove it step by step.", "Prove step by step. " * 400
    rules.took(conversation(short), LARGE)
    assert (await decided(rules, conversation(short, "Thanks")))[0].route == SMALL
    rules.took(conversation(long), LARGE)
    decision, judgement = await decided(rules, conversation(long, "Thanks"))
    assert decision.route == LARGE
    assert "more than the" in judgement.why
    moves = router(policy="rules", sticky=False)
    moves.took(conversation(long), LARGE)
    assert (await decided(moves, conversation(long, "Thanks")))[0].route == SMALL
