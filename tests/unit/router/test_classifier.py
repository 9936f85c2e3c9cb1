"""A classifier from a table to a decision: what it learns, what it is sure of, what it refuses."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from penstock.app.learning import encoded, trained
from penstock.cli import main
from penstock.core.config import RouterSettings
from penstock.core.errors import ConfigError, UserError
from penstock.core.types import Options
from penstock.embed import open_vectors
from penstock.router import Router, make_router
from penstock.router.curve import Part, apgr, cpt, versus, worth
from penstock.router.estimator import load, platt
from penstock.router.evaluation import cross_validated
from penstock.router.table import read_table
from penstock.router.training import fit_platt, splits
from tests.unit.router.asking import ROUTES, TWO, Prices, ask, decided

PLACES = ("river", "city", "mountain", "village", "island", "forest", "harbour", "castle")


def rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """The small model is right about places and wrong about sums, the large one mostly right about both."""
    rng = random.Random(seed)
    found: list[dict[str, object]] = []
    for number in range(count):
        group = f"part {number % 12 // 2}"
        if number % 2:
            prompt = f"What is {rng.randint(100, 999)} * {rng.randint(100, 999)} + {rng.randint(10, 99)}?"
        else:
            prompt = f"Tell me about the {rng.choice(PLACES)} called {rng.choice(PLACES)} number {number}"
        small = rng.random() < (0.05 if number % 2 else 0.95)
        found.append({"prompt": prompt, "model": "small", "score": float(small), "cost": 0.0001, "group": group})
        found.append({"prompt": prompt, "model": "large", "score": float(rng.random() < 0.96), "cost": 0.002, "group": group})
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table, and the classifier that was trained on it."""
    folder = tmp_path_factory.mktemp("router")
    table, out = folder / "table.jsonl", folder / "router.safetensors"
    table.write_text("\n".join(map(json.dumps, rows(240))))
    trained(table, out, "static")
    return table, out


def router(file: Path, **settings: object) -> Router:
    known = {"policy": "classifier", "tiers": TWO, "classifier": str(file), **settings}
    return make_router(RouterSettings(**known), ROUTES, (), lambda: open_vectors("static"), PRICES)  # type: ignore[arg-type]


PRICES = Prices(small=("0.000001", "0.000001", "0.000001"), large=("0.0001", "0.00001", "0.0001"))
PLACE, SUM = ask("Tell me about the city called harbour number 7"), ask("What is 345 * 912 + 17?")


async def test_a_trained_classifier_asks_the_cheapest_model_that_is_as_good(files: tuple[Path, Path]) -> None:
    policy = router(files[1])
    easy, judgement = await decided(policy, PLACE)
    assert (easy.route.model, judgement.rule, judgement.action) == ("small", "classifier", "small")
    assert judgement.score is not None
    assert judgement.score == easy.scores[0] >= 0.85
    hard, judgement = await decided(policy, SUM)
    assert hard.route.model == "large"
    assert [route.model for route in hard.candidates] == ["large", "small"]
    assert hard.scores[0] > 0.8
    assert hard.scores[1] < 0.3
    assert "'small'" in judgement.why
    assert "%" in judgement.why


async def test_the_quality_of_a_request_is_its_own(files: tuple[Path, Path]) -> None:
    cheap, _ = await decided(router(files[1]), ask("What is 345 * 912 + 17?", options=Options(quality=0.01)))
    assert cheap.route.model == "small"


async def test_a_prompt_unlike_all_that_was_learnt_goes_by_the_rules_and_says_so(files: tuple[Path, Path]) -> None:
    strange = "Dear committee, my grandmother's sourdough keeps collapsing: analyse and compare the fermentation schedules in detail."
    decision, judgement = await decided(router(files[1]), ask(strange))
    assert "by rules, since the prompt is unlike those that the classifier learnt from" in decision.why
    assert (decision.scores, judgement.score, decision.tier) == ((), None, "medium")
    no_text, _ = await decided(router(files[1]), ask(messages=None, prompt_token_ids=(1, 2, 3)))
    assert "there is no text to read" in no_text.why


async def test_budget_takes_the_cheapest_of_the_quality_or_the_best_at_the_cost(files: tuple[Path, Path]) -> None:
    cheapest = router(files[1], policy="budget", quality=0.8)
    easy, judgement = await decided(cheapest, PLACE)
    assert easy.route.model == "small"
    assert "about $0.0002" in judgement.why
    assert (await decided(cheapest, SUM))[0].route.model == "large"
    best = router(files[1], policy="budget", max_cost_usd=Decimal(1))
    assert (await decided(best, SUM))[0].route.model == "large"
    poor = router(files[1], policy="budget", max_cost_usd=Decimal("0.01"))
    decision, judgement = await decided(poor, SUM)
    assert decision.route.model == "small"
    assert "surely costs at most $0.01" in judgement.why


async def test_budget_without_a_classifier_goes_by_the_rules() -> None:
    known = {"policy": "budget", "tiers": TWO, "quality": 0.8}
    budget = make_router(RouterSettings(**known), ROUTES, costs=PRICES)  # type: ignore[arg-type]
    decision, judgement = await decided(budget, ask("Hi"))
    assert decision.route.model == "small"
    assert "no classifier is set" in judgement.why
    assert (await decided(budget, ask("Prove step by step that x^2 = 2 has no rational solution")))[0].route.model == "large"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"classifier": ""}, "needs router.classifier"),
        ({"policy": "budget"}, "the policy 'budget' needs something to keep to"),
        ({"tiers": {"simple": "small", "complex": "middle"}}, "does not know the model 'middle'"),
        ({"classifier": "nowhere.safetensors"}, "cannot be read"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused_at_the_start(files: tuple[Path, Path], settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        router(files[1], **settings)


def test_a_classifier_of_other_vectors_and_what_is_no_classifier_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reads vectors of 'static-minilm', there are none here"):
        make_router(RouterSettings(policy="classifier", tiers=TWO, classifier=str(files[1])), ROUTES)
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(files[1].read_bytes()[:1000])
    with pytest.raises(ConfigError, match="is no classifier"):
        router(wrong)


def test_training_twice_gives_the_same_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    again = trained(files[0], tmp_path / "again", "static")
    first = load(files[1])
    assert again.card == first.card
    assert np.array_equal(again.linear.weights, first.linear.weights)
    assert np.array_equal(again.trees.leaves, first.trees.leaves)


def test_train_and_evaluate_print_what_they_found(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "router.safetensors"
    assert main(["router", "train", str(files[0]), "--out", str(out), "--encoder", "none"]) == 0
    assert f'router.classifier = "{out}"' in capsys.readouterr().out
    assert main(["router", "evaluate", str(files[0]), "--encoder", "none"]) == 0
    printed = capsys.readouterr().out
    assert "prompts that it has not seen" in printed
    line = next(line for line in printed.splitlines() if line.startswith("classifier "))
    assert float(line.split()[1]) > 0.7
    assert "always large" in printed
    assert main(["router", "evaluate", str(files[0]), "--classifier", str(out)]) == 0
    told = capsys.readouterr()
    assert "trained on this very table" in told.err
    assert "p = " in told.out


def test_whole_groups_are_held_out_and_drawn(files: tuple[Path, Path]) -> None:
    table = read_table(files[0])
    given, _ = encoded(table, "none")
    parts = list(cross_validated(table, given, unseen=True, folds=2))
    assert sorted(len(set(part.groups)) for part in parts if part.groups is not None) == [3, 3]
    assert all(apgr(part.scores["classifier"], part.gain) > 0.7 for part in parts)
    with pytest.raises(UserError, match="6 groups, 10 at least can be tested unseen"):
        list(cross_validated(table, given, unseen=True))


GOOD = '{"prompt": "a", "model": "small", "score": 1}'


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.jsonl", f"{GOOD}\nnonsense", "t.jsonl:2 is not JSON"),
        ("t.jsonl", f"{GOOD}\n[1]", "t.jsonl:2 is not a JSON object"),
        ("t.jsonl", '{"prompt": "a", "score": 1}', "t.jsonl:1 has no 'model'"),
        ("t.jsonl", f'{GOOD}\n\n{{"prompt": "a", "model": "large", "score": 1.5}}', "t.jsonl:3: score is 1.5, it must be 0 to 1"),
        ("t.jsonl", '{"prompt": "a", "model": "small", "score": 1, "scroe": 1}', "unknown field 'scroe'"),
        ("t.jsonl", '{"prompt": 3, "model": "small", "score": 1}', "prompt, model and group are texts"),
        ("t.jsonl", GOOD, "rows of 1 models"),
        ("t.jsonl", f'{GOOD}\n{{"prompt": "b", "model": "large", "score": 1}}', "no prompt with a row of each of small, large"),
        ("t.csv", "prompt,model,score\na,small,1\nb,small", "t.csv:3 has not as many cells"),
        ("t.csv", "prompt,model,score\na,small,good", "t.csv:2: score is 'good'"),
        ("t.csv", "prompt,model,score,cost\na,small,1,-3", "t.csv:2: cost is '-3', it must be 0 or more"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_table(path)


def test_a_small_table_says_how_many_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text("\n".join(map(json.dumps, rows(10))))
    with pytest.raises(UserError, match="10 prompts are too few to learn from, the least is 40"):
        trained(path, tmp_path / "out", "none")


def test_csv_and_json_lines_are_the_same_table(tmp_path: Path) -> None:
    csv, lines = tmp_path / "table.csv", tmp_path / "table.jsonl"
    csv.write_text('prompt,model,score,cost,group\n"a, b\nc",large,1,0.2,g\n"a, b\nc",small,0.5,0.1,g\n')
    row = {"prompt": "a, b\nc", "group": "g"}
    lines.write_text(
        json.dumps({**row, "model": "large", "score": 1, "cost": 0.2})
        + "\n"
        + json.dumps({**row, "model": "small", "score": 0.5, "cost": 0.1})
    )
    one, other = read_table(csv), read_table(lines)
    assert one.models == other.models == ("small", "large")  # from the cheapest to the dearest
    assert (one.prompts, one.digest, one.costs) == (other.prompts, other.digest, (0.1, 0.2))
    assert one.scores.tolist() == [[0.5, 1.0]]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_estimates_become_probabilities_however_rare_success_is(share: float) -> None:
    rng = np.random.default_rng(0)
    likely = np.clip(share + 0.3 * rng.standard_normal(4000) * share * (1 - share), 0.001, 0.999)
    right = (rng.random(4000) < likely).astype(np.float32)
    raw = (likely + 0.2).astype(np.float32)  # off by as much everywhere
    made = platt(raw[:, None], fit_platt(raw[:, None], right[:, None]))[:, 0]
    assert made.mean() == pytest.approx(right.mean(), abs=0.002)
    assert np.all(np.diff(made[np.argsort(raw)]) >= 0)


def test_a_table_of_few_groups_is_not_learnt_by_leaving_out_a_third_of_the_world() -> None:
    few = [f"cluster {number % 3}" for number in range(90)]
    for train_at, _ in splits(few, 3, 0):
        assert {few[place] for place in train_at} == set(few)


def test_the_area_is_that_of_the_paper() -> None:
    gain = np.array([1.0, 0.0, 0.0, 1.0])
    assert apgr(np.zeros(4), np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(0.5)  # equal scores are no order at all
    assert apgr(np.array([1.0, 0.0, 0.0, 1.0]), gain) == pytest.approx(0.75)  # all of the gap for half of the calls, straight there
    assert apgr(np.array([4.0, 2.0, 1.0, 3.0]), gain) == pytest.approx(0.75)
    assert apgr(np.array([1.0, 3.0, 4.0, 2.0]), gain) == pytest.approx(0.25)
    assert cpt(np.array([4.0, 2.0, 1.0, 3.0]), gain, 0.5) == pytest.approx(0.25)
    assert cpt(np.zeros(4), gain, 0.8) == pytest.approx(0.8)


def test_a_bootstrap_tells_a_better_router_from_chance() -> None:
    rng = np.random.default_rng(0)
    gain = (rng.random(800) < 0.3).astype(float)
    parts = [Part(gain, {"good": gain + rng.random(800), "random": np.zeros(800)}, np.arange(800) // 20)]
    figures = worth(parts, rounds=200)
    assert figures["good"].low < figures["good"].apgr < figures["good"].high
    assert figures["random"].apgr == pytest.approx(0.5)
    assert versus(parts, "good", "random", rounds=200).p < 0.01
    assert versus(parts, "random", "random", rounds=200).p == 1.0


def test_a_part_without_a_gap_leaves_the_interval_whole() -> None:
    rng = np.random.default_rng(0)
    gain = (rng.random(400) < 0.3).astype(float)
    level = np.where(np.arange(400) % 2, 1.0, -1.0)  # here neither model is the better one
    parts = [Part(each, {"good": each + rng.random(400)}, np.arange(400) // 20) for each in (gain, level)]
    figures = worth(parts, rounds=200)["good"]
    assert 0.5 < figures.low < figures.apgr < figures.high < 4


def test_testing_the_same_groups_again_is_no_new_evidence() -> None:
    rng = np.random.default_rng(0)
    gain = (rng.random(400) < 0.3).astype(float)
    part = Part(gain, {"good": gain + rng.random(400)}, np.arange(400) // 20)
    once, thrice = (worth([part] * count, rounds=200)["good"] for count in (1, 3))
    assert (thrice.apgr, thrice.low, thrice.high) == pytest.approx((once.apgr, once.low, once.high))
