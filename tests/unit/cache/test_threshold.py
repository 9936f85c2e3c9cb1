"""The share of wrong answers that is promised, whatever the traffic; and that hits come of it."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.cache.store.protocol import Seen
from penstock.cache.threshold import BINS, Choice, Fit, Tally, Thresholds, fitted, lower_bound

DELTA = 0.02


class Traffic:
    """Lookups whose best candidate is right with log-odds shift + slope · trust + the entry's own."""

    def __init__(self, seed: int, *, shift: float = 0.0, slope: float = 1.0, spread: float = 0.0, delta: float = DELTA) -> None:
        self._rng = Random(seed)
        self._shift, self._slope = shift, slope
        self._own = [self._rng.gauss(0, spread) for _ in range(400)]
        self._seen: dict[int, tuple[Seen, ...]] = {}
        self.thresholds, self.tally = Thresholds(delta), Tally()
        self.lookups = self.hits = self.wrong = 0

    def run(self, lookups: int) -> Traffic:
        for _ in range(lookups):
            self._one()
        return self

    def _one(self) -> None:
        self.lookups += 1
        if self._rng.random() < 0.3:
            self.thresholds.decide(self.tally, (), None, self._rng.random())
            return
        trust, entry = self._rng.gauss(-0.5, 2.2), int(400 * self._rng.random() ** 2)
        right = self._rng.random() < 1 / (1 + math.exp(-(self._shift + self._slope * trust + self._own[entry])))
        choice = self.thresholds.decide(self.tally, self._seen.get(entry, ()), trust, self._rng.random())
        if choice.action == "serve":
            self.hits += 1
            self.wrong += not right
        else:
            self.thresholds.learn(self.tally, trust, right)
            self._seen[entry] = (*self._seen.get(entry, ()), Seen(trust, right))[-64:]


@pytest.mark.parametrize(
    ("shift", "slope", "spread"),
    [(0.0, 1.0, 0.0), (0.0, 1.0, 1.0), (-1.0, 1.0, 0.5), (1.0, 1.0, 0.0), (-1.0, 0.6, 0.5)],
    ids=["as-trained", "entries-differ", "harder", "easier", "trust-means-less"],
)
def test_wrong_answers_stay_below_delta_on_traffic_that_the_prior_has_not_seen(shift: float, slope: float, spread: float) -> None:
    traffic = Traffic(1, shift=shift, slope=slope, spread=spread).run(8000)
    assert traffic.wrong / traffic.lookups <= DELTA
    assert traffic.hits / traffic.lookups > 0.03


def test_a_looser_delta_gives_more_hits() -> None:
    assert Traffic(2, delta=0.05).run(4000).hits > 1.3 * Traffic(2, delta=0.02).run(4000).hits


def test_one_budget_for_all_lookups_gives_more_hits_than_one_each_of_the_same_total() -> None:
    pooled, each = Traffic(3), Traffic(3)
    each.thresholds = Thresholds(DELTA, pooled=False)
    assert pooled.run(6000).hits > 1.5 * each.run(6000).hits


def test_lookups_that_find_nothing_are_not_saved_up_without_limit() -> None:
    thresholds, tally = Thresholds(DELTA), Tally()
    for _ in range(50_000):
        thresholds.decide(tally, (), None, 0.5)
    assert tally.purse <= DELTA * 2000


def test_what_is_served_is_still_tried_now_and_then() -> None:
    thresholds, tally, rng = Thresholds(DELTA), Tally(), Random(4)
    sure = [thresholds.decide(tally, (), 6.5, rng.random()).action for _ in range(4000)]
    assert 0.01 < sure.count("try") / len(sure) < 0.04


def test_an_entry_that_was_wrong_is_served_less_and_one_that_was_right_more() -> None:
    fit = Fit()
    fresh = lower_bound(fit, (), 2.0)
    assert lower_bound(fit, [Seen(2.0, False)] * 3, 2.0) < fresh - 0.3
    assert lower_bound(fit, [Seen(2.0, True)] * 10, 2.0) > fresh


@given(st.permutations([Seen(0.5, True), Seen(1.5, False), Seen(2.5, True), Seen(-1.0, False)]), st.floats(-4, 6))
def test_the_order_of_trials_changes_nothing(seen: list[Seen], trust: float) -> None:
    assert lower_bound(Fit(), seen, trust) == pytest.approx(lower_bound(Fit(), sorted(seen, key=lambda trial: trial.similarity), trust))


@given(
    st.lists(st.tuples(st.integers(0, BINS - 1), st.integers(0, 50), st.integers(0, 50)), max_size=12),
    st.lists(st.tuples(st.floats(-50, 50), st.booleans()), max_size=64),
    st.floats(-1e6, 1e6),
)
@settings(deadline=None)
def test_any_trials_leave_probabilities_that_rise_with_trust(
    marks: list[tuple[int, int, int]], trials: list[tuple[float, bool]], trust: float
) -> None:
    right, wrong = [0.0] * BINS, [0.0] * BINS
    for place, good, bad in marks:
        right[place] += good
        wrong[place] += bad
    fit = fitted(right, wrong)
    assert fit.slope > 0
    assert fit.var_shift > 0
    assert fit.var_slope > 0
    tally = Tally()
    tally.fit = fit
    choice = Thresholds(DELTA).decide(tally, [Seen(at, same) for at, same in trials], trust, 0.5)
    assert isinstance(choice, Choice)
    assert 0 <= choice.risk <= 1
    assert 0 <= choice.tau <= 1


def test_the_very_first_lookups_cannot_spend_what_was_not_put_in() -> None:
    """A group without a history: no serving whose risk is above delta times the lookups so far."""
    thresholds, tally = Thresholds(DELTA), Tally()
    spent = 0.0
    for count in range(1, 400):
        choice = thresholds.decide(tally, (), 1.5, 0.99)
        spent += choice.risk if choice.action == "serve" else 0.0
        assert spent <= DELTA * count
