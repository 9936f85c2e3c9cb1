"""Tokens drawn by the native kernels: those that torch draws from the same logits and seeds."""

from __future__ import annotations

import random

import pytest
import torch

from penstock.core.types import Sampling
from penstock.engine.kernels.cpu.library import Pool, libraries, load_library
from penstock.engine.sampler import Row, Sampler


@pytest.fixture(params=libraries() or [pytest.param(None, marks=pytest.mark.skip("no native kernels are installed"))])
def pool(request: pytest.FixtureRequest) -> Pool:
    return Pool(load_library(request.param), threads=2)


def any_sampling(rng: random.Random) -> Sampling:
    return Sampling(
        temperature=rng.choice([0.0, 0.3, 0.8, 1.0, 1.7]),
        top_k=rng.choice([None, None, 1, 3, 20, 50, 300]),
        top_p=rng.choice([1.0, 0.95, 0.5, 0.1, 1e-12]),
        min_p=rng.choice([0.0, 0.0, 0.05, 0.3]),
    )


def any_rows(rng: random.Random, count: int) -> list[Row]:
    seeds = [rng.getrandbits(66) - 2**65 for _ in range(count)]
    return [Row(key=seed, sampling=any_sampling(rng), seed=seed, tokens=[1] * rng.randrange(3, 60), num_prompt=3) for seed in seeds]


def drawn(sampler: Sampler, logits: torch.Tensor, rows: list[Row]) -> list[int]:
    return [sampled.token_id for sampled in sampler.sample(logits.clone(), rows)]


@pytest.mark.feature("sampling", "seed", "greedy")
@pytest.mark.parametrize("vocab_size", [3, 130, 2048, 33_333, 151_936])
def test_seeds_draw_the_same_tokens_as_with_torch(pool: Pool, vocab_size: int) -> None:
    rng = random.Random(vocab_size)
    for scale in (0.5, 3.0, 8.0):
        rows = any_rows(rng, 8 if vocab_size > 10_000 else 60)
        logits = torch.randn(len(rows), vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * scale
        assert drawn(Sampler(vocab_size, "cpu", pool), logits, rows) == drawn(Sampler(vocab_size, "cpu"), logits, rows)


def test_all_that_equal_the_last_of_the_best_may_be_drawn(pool: Pool) -> None:
    rows = [Row(key=seed, sampling=Sampling(top_k=2), seed=seed, tokens=[1], num_prompt=1) for seed in range(300)]
    logits = torch.zeros(300, 5_000)
    logits[:, [70, 900, 4_000]] = 1.0
    assert set(drawn(Sampler(5_000, "cpu", pool), logits, rows)) == {70, 900, 4_000}


def test_a_row_without_numbers_gets_a_token_and_its_mates_their_own(pool: Pool) -> None:
    rng = random.Random(5)
    rows, vocab_size = any_rows(rng, 60), 700
    logits = torch.randn(len(rows), vocab_size, generator=torch.Generator().manual_seed(1))
    expected = drawn(Sampler(vocab_size, "cpu", pool), logits, rows)
    for value in (torch.nan, torch.inf, -torch.inf):
        broken = logits.clone()
        broken[::2] = value
        tokens = drawn(Sampler(vocab_size, "cpu", pool), broken, rows)
        assert all(0 <= token < vocab_size for token in tokens)
        assert tokens[1::2] == expected[1::2]


def test_an_infinite_logit_is_the_best(pool: Pool) -> None:
    rows = [Row(key=seed, sampling=Sampling(top_k=200, top_p=0.9), seed=seed, tokens=[1], num_prompt=1) for seed in range(20)]
    logits = torch.randn(20, 5_000, generator=torch.Generator().manual_seed(2))
    logits[:, 70::700] = torch.inf
    assert set(drawn(Sampler(5_000, "cpu", pool), logits, rows)) <= set(range(70, 5_000, 700))
