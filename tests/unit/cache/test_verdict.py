"""From the nearest stored questions to one decision, with the weights that ship."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from safetensors.numpy import load_file

from penstock.cache.pairs import BUCKETS, NUM_FEATURES, Floats, PairModel, features
from penstock.cache.reading import read
from penstock.cache.store.protocol import Seen
from penstock.cache.threshold import Thresholds
from penstock.cache.verdict import WEIGHTS, Candidate, Verifier, open_verifier
from penstock.core.errors import LoadError

DIMENSIONS = 384


def _vector(seed: int, near: Floats | None = None, share: float = 0.0, dimensions: int = DIMENSIONS) -> Floats:
    """A unit vector; with `near`, one whose cosine to it is about `share`."""
    drawn = np.random.default_rng(seed).normal(size=dimensions)
    drawn /= np.linalg.norm(drawn)
    mixed = drawn if near is None else share * near + np.sqrt(1 - share**2) * drawn
    return np.asarray(mixed / np.linalg.norm(mixed), dtype=np.float32)


ASKED = _vector(0)


@pytest.fixture
def verifier() -> Verifier:
    return open_verifier("all-minilm-l6-v2", 0.02)


def _settled(verifier: Verifier, group: str, lookups: int = 3000) -> None:
    """Traffic that finds nothing, so that there is something in the purse."""
    for _ in range(lookups):
        verifier.judge(group, "What is a fjord?", ASKED, [], 0.5)


def test_nothing_stored_is_a_miss(verifier: Verifier) -> None:
    verdict = verifier.judge("t", "How do I boil an egg?", ASKED, [], 0.99)
    assert verdict.action == "pass"
    assert verdict.why == "nothing stored is near"


def test_the_same_words_are_served_at_once(verifier: Verifier) -> None:
    stored = [Candidate("How do I bake bread?", _vector(1)), Candidate("How do I boil an egg?", ASKED)]
    verdict = verifier.judge("t", "How do I boil an egg?", ASKED, stored, 0.0)
    assert (verdict.action, verdict.place) == ("serve", 1)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("Can I boil 3 eggs at once?", "Can I boil 13 eggs at once?"),
        ("Is it safe to eat raw eggs?", "Is it not safe to eat raw eggs?"),
        ("How do I convert grams to cups?", "How do I convert cups to grams?"),
    ],
)
def test_however_close_a_question_that_differs_is_never_served_and_the_reason_is_told(verifier: Verifier, asked: str, stored: str) -> None:
    _settled(verifier, "t")
    twin = Candidate(stored, _vector(2, ASKED, 0.999), (Seen(9.0, True),) * 64)
    for draw in range(50):
        verdict = verifier.judge("t", asked, ASKED, [twin], draw / 50)
        assert verdict.action == "pass"
        assert verdict.why.startswith("the nearest differs in")


def test_a_close_paraphrase_is_served_once_the_group_can_afford_it_and_tried_before(verifier: Verifier) -> None:
    twin = Candidate("How can I boil an egg?", _vector(3, ASKED, 0.98))
    assert verifier.judge("t", "How do I boil an egg?", ASKED, [twin], 0.9).action == "try"
    _settled(verifier, "t")
    verdict = verifier.judge("t", "How do I boil an egg?", ASKED, [twin], 0.9)
    assert (verdict.action, verdict.place) == ("serve", 0)
    assert verdict.risk < 0.5
    assert verifier.judge("t", "How do I boil an egg?", ASKED, [twin], 0.001).action == "try"


def test_what_one_group_saved_up_or_learned_is_not_anothers(verifier: Verifier) -> None:
    twin = Candidate("How can I boil an egg?", _vector(3, ASKED, 0.98))
    _settled(verifier, "one")
    verdict = verifier.judge("one", "How do I boil an egg?", ASKED, [twin], 0.9)
    assert verdict.action == "serve"
    assert verifier.judge("two", "How do I boil an egg?", ASKED, [twin], 0.9).action == "try"
    for _ in range(300):
        verifier.learn("one", verdict.trust, False)
    _settled(verifier, "two")
    assert verifier.judge("one", "How do I boil an egg?", ASKED, [twin], 0.9).action == "try"
    assert verifier.judge("two", "How do I boil an egg?", ASKED, [twin], 0.9).action == "serve"


def test_of_several_candidates_the_nearest_without_a_difference_is_taken(verifier: Verifier) -> None:
    stored = [
        Candidate("How do I boil a potato?", _vector(4, ASKED, 0.7)),
        Candidate("How can I boil an egg?", _vector(5, ASKED, 0.97)),
        Candidate("How do I boil 2 eggs?", _vector(6, ASKED, 0.99)),
    ]
    assert verifier.judge("t", "How do I boil an egg?", ASKED, stored, 0.5).place == 1


@pytest.mark.parametrize("encoder", ["all-minilm-l6-v2", "static-minilm"])
def test_each_encoder_ships_weights_by_which_closer_is_surer(encoder: str) -> None:
    dimensions = load_file(WEIGHTS / f"{encoder}.safetensors")["apart"].size
    asked = _vector(0, dimensions=dimensions)
    model = PairModel.load(WEIGHTS, encoder)
    one, other = read("How do I boil an egg?"), read("How can I boil an egg?")
    far = float(np.mean([model.trust(one, other, asked, _vector(seed, asked, 0.5, dimensions)) for seed in range(9)]))
    close = float(np.mean([model.trust(one, other, asked, _vector(seed, asked, 0.97, dimensions)) for seed in range(9)]))
    assert close > far + 1


def test_weights_that_are_missing_or_torn_are_an_error_that_says_which(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"nobody\.safetensors"):
        PairModel.load(tmp_path, "nobody")
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(LoadError, match=r"torn\.safetensors"):
        PairModel.load(tmp_path, "torn")
    with pytest.raises(LoadError, match="lack"):
        PairModel({"bias": np.zeros(1, np.float32)})


def test_there_are_as_many_features_as_weights() -> None:
    assert len(features(read("Why?"), read("How many?"), 1.0)) == NUM_FEATURES


def test_errors_stay_below_delta_where_likeness_is_all_there_is() -> None:
    """A stream through the whole verifier, with a truth that its weights were not made for."""
    rng = Random(7)
    weights = {"bias": [-12.0], "by_hand": [15.0] + [0.0] * (NUM_FEATURES - 1), "words": [0.0] * BUCKETS}
    zeros = [0.0] * DIMENSIONS
    model = PairModel({name: np.array(row, np.float32) for name, row in {**weights, "apart": zeros, "alike": zeros}.items()})
    verifier = Verifier(model, Thresholds(0.02))
    hits = wrong = 0
    for turn in range(1500):
        share = rng.random()
        right = rng.random() < 1 / (1 + np.exp(-(14 * share - 12)))
        verdict = verifier.judge(
            "t", "how do I boil eggs", ASKED, [Candidate("how can I boil eggs", _vector(turn, ASKED, share))], rng.random()
        )
        if verdict.action == "serve":
            hits, wrong = hits + 1, wrong + (not right)
        else:
            verifier.learn("t", verdict.trust, right)
    assert wrong / 1500 <= 0.02
    assert hits > 30
