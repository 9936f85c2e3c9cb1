"""The drawn tokens follow the exact distribution, which transformers' warpers define."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from penstock.core.types import Sampling
from penstock.engine.draw import best, fractions, random_states
from penstock.engine.sampler import Row, Sampler

NUM_DRAWS = 20_000


def warped(logits: Tensor, sampling: Sampling) -> Tensor:
    """The probabilities that transformers would draw from, [vocab] float64."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0.0:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers(torch.zeros(1, 1, dtype=torch.int64), logits[None].clone())[0].double().softmax(-1)


def drawn(logits: Tensor, sampling: Sampling, count: int = NUM_DRAWS) -> Counter[int]:
    """Tokens drawn at the first position by `count` sequences with different seeds."""
    sampler = Sampler(len(logits), "cpu")
    rows = [Row(key=seed, sampling=sampling, seed=seed, tokens=[], num_prompt=0) for seed in range(count)]
    return Counter(score.token_id for score in sampler.sample(logits.repeat(count, 1), rows))


def chi_square_excess(counts: Counter[int], probabilities: Tensor) -> float:
    """How many standard deviations the chi-square statistic is above its mean; rare tokens are pooled."""
    total = sum(counts.values())
    expected = {i: p * total for i, p in enumerate(probabilities.tolist()) if p * total >= 10}
    rest = total - sum(expected.values())
    pairs = [(counts[i], e) for i, e in expected.items()]
    if rest >= 10:
        pairs.append((total - sum(counts[i] for i in expected), rest))
    freedom = max(len(pairs) - 1, 1)
    statistic = sum((observed - e) ** 2 / e for observed, e in pairs)
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.4),
        Sampling(temperature=3.0),
        Sampling(top_k=1),
        Sampling(top_k=7),
        Sampling(top_k=1000),
        Sampling(top_p=0.9),
        Sampling(top_p=0.3),
        Sampling(top_p=0.01),
        Sampling(min_p=0.1),
        Sampling(temperature=0.7, top_k=20, top_p=0.8),
        Sampling(temperature=1.5, top_k=50, top_p=0.95, min_p=0.05),
        Sampling(temperature=1.2, top_p=0.9, min_p=0.02),
    ],
    ids=lambda sampling: msgspec.json.encode(sampling).decode(),
)
@pytest.mark.parametrize("vocab", [60, 300])
def test_draws_follow_the_distribution_that_transformers_defines(sampling: Sampling, vocab: int) -> None:
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(vocab)) * 2
    probabilities = warped(logits, sampling)
    counts = drawn(logits, sampling)
    outside = [token for token in counts if probabilities[token] == 0]
    assert not outside
    assert chi_square_excess(counts, probabilities) < 5


def test_the_statistic_notices_a_wrong_distribution() -> None:
    logits = torch.randn(60, generator=torch.Generator().manual_seed(0)) * 2
    counts = drawn(logits, Sampling(temperature=1.0))
    assert chi_square_excess(counts, warped(logits, Sampling(temperature=1.1))) > 5


def test_all_of_several_equally_likely_tokens_stay_at_a_limit() -> None:
    logits = torch.tensor([1.0, 3.0, 1.0, 1.0, 0.0])
    assert set(drawn(logits, Sampling(top_k=2), 500)) == {0, 1, 2, 3}
    assert set(drawn(logits, Sampling(top_p=0.75), 500)) == {0, 1, 2, 3}


def test_top_p_of_zero_leaves_the_best_token() -> None:
    logits = torch.randn(500, generator=torch.Generator().manual_seed(3))
    assert set(drawn(logits, Sampling(top_p=0.0), 200)) == {int(logits.argmax())}


@pytest.mark.parametrize("vocab", [5, 128, 200, 1000])
def test_best_is_the_first_of_the_largest(vocab: int) -> None:
    logits = torch.randint(0, 9, (50, vocab), generator=torch.Generator().manual_seed(vocab)).float()
    assert torch.equal(best(logits), logits.argmax(-1))


def test_random_numbers_are_uniform_and_independent_along_seeds_and_positions() -> None:
    grid = torch.arange(300)
    numbers = fractions(random_states(grid.repeat_interleave(300), grid.repeat(300))).view(300, 300)
    assert (numbers.min() >= 0) & (numbers.max() < 1)
    assert torch.histc(numbers, 10, 0, 1).sub(9000).abs().max() < 450  # five standard deviations
    for neighbours in (numbers[1:], numbers[:, 1:]):
        shifted = numbers[:-1] if neighbours.shape[0] == 299 else numbers[:, :-1]
        assert torch.corrcoef(torch.stack([shifted.flatten(), neighbours.flatten()]))[0, 1].abs() < 0.017


def splitmix64(x: int) -> int:
    """The output for state `x`, as published: with unsigned arithmetic of any size, cut to 64 bits."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@pytest.mark.parametrize("seed", [0, 1, -5, 2**62, -(2**63)])
@pytest.mark.parametrize("position", [0, 1, 100_000])
def test_random_numbers_never_change(seed: int, position: int) -> None:
    """A seed's text must be the same in the next release and on every device."""
    state = splitmix64(splitmix64(seed) + position * 0x9E3779B97F4A7C15)
    assert fractions(random_states(torch.tensor([seed]), torch.tensor([position]))).item() == (state >> 16) / 2**48
