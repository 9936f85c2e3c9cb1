"""What is read of an answer's tokens, and how a calibration makes a probability of it."""

from __future__ import annotations

import math
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.app.calibration import weights_digest
from penstock.core.config import RouterSettings
from penstock.core.errors import ConfigError, UserError
from penstock.core.types import TokenLogprob, TopLogprob
from penstock.files.locate import BUILTIN
from penstock.router.calibrate import Graded, Names, area, calibrate, targets
from penstock.router.confidence import (
    FALLING,
    FEATURES,
    NEVER,
    Calibration,
    Curve,
    Reading,
    Target,
    builtin_calibrations,
    calibrations,
    read_calibration,
)

CURVES = {
    "total": Curve((-3.0, 7.0), (-4.0, 4.0)),
    "margin": Curve((0.0, 2.0, 8.0), (0.0, 1.0, -0.5)),
    "entropy": Curve((-3.0, 7.0), (-1.0, 1.0)),
    "length": Curve((0.0, 2.0, 4.0), (0.5, -0.5, 0.2)),
    "first": Curve((-3.0, 7.0), (0.3, -0.3)),
    "declines": Curve((0.0, 1.0), (0.0, -1.0)),
}
MADE = Calibration(model="m", larger="l", intercept=0.2, curves=CURVES, longest=40, targets=())


def token(logprob: float, others: tuple[float, ...] = (-5.0, -6.0)) -> TokenLogprob:
    """A token that was the likeliest; `others` are the next ones."""
    top = tuple(TopLogprob(place, "", value) for place, value in enumerate((logprob, *others)))
    return TokenLogprob(0, "x", logprob, top)


def reading(*logprobs: float, text: str = "x") -> Reading:
    made = Reading()
    made.see(text, [token(logprob) for logprob in logprobs])
    return made


def test_doubt_in_any_token_lowers_the_confidence() -> None:
    sure, one, all_of_them = reading(*[-0.001] * 8), reading(*[-0.001] * 7, -2.0), reading(*[-2.0] * 8)
    assert MADE.confidence(sure) > MADE.confidence(one) > MADE.confidence(all_of_them)


@given(st.lists(st.floats(-9.0, 0.0), min_size=1, max_size=40), st.integers(0, 39))
def test_no_answer_ends_with_more_confidence_than_its_beginning_could_reach(logprobs: list[float], cut: int) -> None:
    whole, part = Reading(), Reading()
    for place, logprob in enumerate(logprobs):
        seen = [token(logprob, (min(-1.0, logprob), -7.0))]
        whole.see("sorry, " if place == 3 else "x", seen)
        if place <= cut:
            part.see("sorry, " if place == 3 else "x", seen)
    assert MADE.at_best(part) >= MADE.confidence(whole) - 1e-12


@given(st.lists(st.floats(-20.0, 0.0), min_size=1, max_size=20))
def test_features_that_fall_only_fall(logprobs: list[float]) -> None:
    made, before = Reading(), dict.fromkeys(FALLING, math.inf)
    for logprob in logprobs:
        made.see("x", [token(logprob)])
        now = made.features()
        assert set(now) == set(FEATURES)
        assert all(now[name] <= before[name] for name in FALLING)
        before = now


@pytest.mark.parametrize("piece", [None, [TokenLogprob(0, "x", -0.1)]])
def test_what_cannot_be_read_is_not_trusted(piece: list[TokenLogprob] | None) -> None:
    """No log-probabilities at all, or none of the alternatives."""
    made = reading(-0.001)
    made.see("more", piece)
    assert (made.whole, MADE.confidence(made), MADE.at_best(made)) == (False, 0.0, 0.0)
    assert MADE.confidence(Reading()) == 0.0


def test_a_server_s_never_is_finite() -> None:
    made = Reading()
    made.see("x", [TokenLogprob(0, "x", -9999.0, (TopLogprob(1, "y", 0.0), TopLogprob(2, "z", -9999.0)))])
    assert 0.0 < MADE.confidence(made) < 1.0


def test_an_answer_that_declines_is_seen_however_its_apostrophe_is_written() -> None:
    assert [reading(-0.1, text=text).features()["declines"] for text in ("I can’t do that", "Sorry, no", "Paris")] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(("quality", "trust"), [(None, 0.7), (0.5, 0.4), (0.9, 0.4), (0.91, 0.7), (0.98, 0.7), (0.99, NEVER)])
def test_the_trust_for_a_quality_is_that_of_the_next_one_measured(quality: float | None, trust: float) -> None:
    table = (Target(quality=0.9, trust=0.4, kept=0.9), Target(quality=0.98, trust=0.7, kept=0.6))
    assert msgspec.structs.replace(MADE, targets=table).trust_for(quality) == trust


def graded(count: int, seed: int = 1) -> list[Graded]:
    """Answers that are right as often as their doubtful token is likely; the larger model is right nine times of ten."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        likely = rng.random()
        rest = [-0.001] * rng.randint(2, 12)
        answer = reading(*rest, math.log(max(likely, 1e-4)))
        found.append(Graded(answer, rng.random() < likely, rng.random() < 0.9))
    return found


def test_a_fit_says_how_often_answers_are_right() -> None:
    made = calibrate(graded(1000), Names(model="m", larger="l"))
    assert made.measured["auc"] > 0.8
    unseen = graded(1500, seed=2)
    said = np.array([made.confidence(one.reading) for one in unseen])
    right = np.array([one.right for one in unseen], dtype=float)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        inside = (said >= low) & (said < high)
        assert abs(said[inside].mean() - right[inside].mean()) < 0.08
    assert area(said, right) == pytest.approx(made.measured["auc"], abs=0.04)


def test_the_trust_for_a_target_keeps_it_on_answers_never_seen() -> None:
    made = calibrate(graded(1500), Names(model="m", larger="l"))
    for seed in (5, 6):
        unseen = graded(1500, seed=seed)
        trust = made.trust_for(0.97)
        kept = [made.confidence(one.reading) >= trust for one in unseen]
        cascade = sum(one.right if keep else one.larger_right for one, keep in zip(unseen, kept, strict=True))
        assert 0.05 < sum(kept) / len(kept) < 0.6
        assert cascade / sum(one.larger_right for one in unseen) > 0.955
    assert made.trust_for(1.0) > made.trust_for(0.98) > made.trust_for(0.9)


def test_where_the_small_model_is_never_right_no_more_is_kept_than_may_be_lost() -> None:
    for target in targets(np.linspace(0, 0.99, 300), np.zeros(300), np.ones(300)):
        assert target.kept <= 1 - target.quality + 1e-9
        assert (target.trust == NEVER) == (target.kept == 0)


def test_where_it_is_as_good_everything_is() -> None:
    confidence, right = np.linspace(0, 1, 300), np.ones(300)
    assert all(target.kept == 1.0 for target in targets(confidence, right, right))


def test_answers_of_equal_confidence_are_kept_together_or_not_at_all() -> None:
    right = np.array([1.0] * 200 + [0.0] * 100)
    assert all(target.kept == 0.0 and target.trust == NEVER for target in targets(np.full(300, 0.66), right, np.ones(300)))


def test_too_few_answers_make_no_calibration() -> None:
    with pytest.raises(UserError, match="100 answers"):
        calibrate(graded(100), Names(model="m", larger="l"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"no", "is no calibration"),
        (b"{}", "is no calibration"),
        (msgspec.json.encode(msgspec.structs.replace(MADE, curves={"vibes": Curve((0.0, 1.0), (0.0, 1.0))})), "'vibes'"),
        (msgspec.json.encode(msgspec.structs.replace(MADE, curves={"total": Curve((1.0, 0.0), (0.0, 1.0))})), "make no curve"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text: bytes | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(ConfigError, match=says):
        read_calibration(file)


def test_the_built_in_calibration_is_found_by_what_was_loaded() -> None:
    known = builtin_calibrations()
    assert "penstock-mini" in known
    found = calibrations(RouterSettings(), {"tiny": "penstock-mini", "other": "somewhere"})
    assert found == {"tiny": known["penstock-mini"]}


def test_the_built_in_calibration_is_that_of_the_weights_beside_it() -> None:
    """Other weights have other confidences: `python -m training.cascade` makes the file anew."""
    known = builtin_calibrations()["penstock-mini"]
    assert known.digest == weights_digest(BUILTIN["penstock-mini"] / "model.safetensors")
