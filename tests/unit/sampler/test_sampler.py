"""What a user of sampling parameters would notice, on whole batches."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import NoBadWordsLogitsProcessor, RepetitionPenaltyLogitsProcessor

from penstock.core.errors import InvalidRequest
from penstock.core.types import Sampling
from penstock.engine.processors import Penalties, check_token_ids
from penstock.engine.sampler import Row, Sampled, Sampler

VOCAB = 333
GREEDY = Sampling(temperature=0.0)

MIXED = [
    GREEDY,
    Sampling(temperature=0.0, repetition_penalty=1.3),
    Sampling(),
    Sampling(temperature=0.3, logprobs=2),
    Sampling(top_k=5),
    Sampling(top_k=300),
    Sampling(top_p=0.5),
    Sampling(top_p=0.95, min_p=0.01),
    Sampling(min_p=0.2),
    Sampling(temperature=1.4, top_k=40, top_p=0.9, frequency_penalty=0.5),
    Sampling(presence_penalty=1.0, logit_bias={3: 4.0, 17: -2.0}),
    Sampling(allowed_token_ids=(1, 2, 3, 200)),
]


def logits_of(*rows: int) -> torch.Tensor:
    """Logits that depend on the number of each row only, [rows, VOCAB]."""
    return torch.stack([torch.randn(VOCAB, generator=torch.Generator().manual_seed(row)) * 3 for row in rows])


def row(sampling: Sampling, *, prompt: tuple[int, ...] = (5, 6, 7), output: tuple[int, ...] = (), **more: object) -> Row:
    fields = {"key": object(), "seed": 0, "tokens": [*prompt, *output], "num_prompt": len(prompt), "sampling": sampling}
    return Row(**(fields | more))  # type: ignore[arg-type]


def sample_one(sampling: Sampling, logits: torch.Tensor, **more: object) -> Sampled:
    return Sampler(logits.shape[-1], "cpu").sample(logits[None].clone(), [row(sampling, **more)])[0]


def continued(sampler: Sampler, order: list[int], steps: int) -> dict[int, list[int]]:
    """What each of MIXED generates in a batch of `order`; the logits depend on the sequence and its last token."""
    tokens = {i: [i, i + 1, 9] for i in order}
    for _ in range(steps):
        rows = [Row(key=i, sampling=MIXED[i], seed=i * 77, tokens=tokens[i], num_prompt=3) for i in order]
        logits = logits_of(*(1000 * i + tokens[i][-1] for i in order))
        for i, score in zip(order, sampler.sample(logits, rows), strict=True):
            tokens[i].append(score.token_id)
    return tokens


@pytest.mark.feature("sampling", "seed", "greedy", "logprobs", "allowed tokens", "continuous batching")
def test_the_same_seed_gives_the_same_text_whatever_runs_beside_it() -> None:
    everything = list(range(len(MIXED)))
    together = continued(Sampler(VOCAB, "cpu"), everything, 12)
    shuffled = continued(Sampler(VOCAB, "cpu"), random.Random(1).sample(everything, len(everything)), 12)
    assert shuffled == together
    for i in everything:
        assert continued(Sampler(VOCAB, "cpu"), [i], 12)[i] == together[i]


def test_batch_mates_that_come_and_go_change_nothing() -> None:
    alone = continued(Sampler(VOCAB, "cpu"), [9], 10)[9]
    sampler, tokens = Sampler(VOCAB, "cpu"), [9, 10, 9]
    for step in range(10):
        mates = [row(MIXED[(step + j) % len(MIXED)]) for j in range(step % 4)]
        mine = Row(key="mine", sampling=MIXED[9], seed=9 * 77, tokens=tokens, num_prompt=3)
        logits = logits_of(*range(len(mates)), 9000 + tokens[-1])
        tokens.append(sampler.sample(logits, [*mates, mine])[-1].token_id)
    assert tokens == alone


def test_equal_logits_are_no_reason_for_batch_mates_to_matter() -> None:
    """bfloat16 logits are often equal; which of them come first among the best must not decide."""
    logits = logits_of(*range(40)).round()
    mine = [row(Sampling(top_k=6, top_p=0.9), seed=seed) for seed in range(40)]
    alone = [score.token_id for score in Sampler(VOCAB, "cpu").sample(logits.clone(), mine)]
    mate = row(Sampling(top_k=150))
    beside = Sampler(VOCAB, "cpu").sample(torch.cat([logits, logits[:1]]), [*mine, mate])
    assert [score.token_id for score in beside[:-1]] == alone


def test_one_sequence_may_take_the_place_of_another() -> None:
    sampler, logits = Sampler(VOCAB, "cpu"), torch.zeros(2, VOCAB)
    first, second, third = (row(Sampling(temperature=0.0, logit_bias={token: 1.0})) for token in (10, 20, 30))
    for rows, expected in (([first, second], [10, 20]), ([first, third], [10, 30]), ([third, first], [30, 10])):
        assert [score.token_id for score in sampler.sample(logits.clone(), rows)] == expected


def test_seeds_and_positions_change_the_draw() -> None:
    flat = torch.zeros(VOCAB)
    assert len({sample_one(Sampling(), flat, seed=seed).token_id for seed in range(50)}) > 35
    assert len({sample_one(Sampling(), flat, output=(1,) * n).token_id for n in range(50)}) > 35


@pytest.mark.parametrize("seed", [-(2**70), -1, 2**63, 2**64 + 5])
def test_any_integer_is_a_seed(seed: int) -> None:
    first = sample_one(Sampling(), torch.zeros(VOCAB), seed=seed)
    assert first.token_id == sample_one(Sampling(), torch.zeros(VOCAB), seed=seed).token_id


@pytest.mark.parametrize("temperature", [0.0, 1e-9])
def test_temperature_near_zero_is_greedy(temperature: float) -> None:
    logits = logits_of(4)[0]
    assert sample_one(Sampling(temperature=temperature), logits).token_id == int(logits.argmax())


def test_integers_are_as_good_as_floats() -> None:
    assert sample_one(Sampling(temperature=1, logit_bias={3: 100}), logits_of(1)[0]).token_id == 3


def test_repetition_penalty_is_that_of_transformers_over_prompt_and_output() -> None:
    rows = [row(Sampling(repetition_penalty=p), prompt=(1, 2, 2, 3), output=(50, 2, 60)) for p in (1.3, 0.7)]
    rows.insert(1, row(GREEDY))
    logits = logits_of(1, 2, 3)
    expected = logits.clone()
    for i in (0, 2):
        processor = RepetitionPenaltyLogitsProcessor(rows[i].sampling.repetition_penalty)
        expected[i] = processor(torch.tensor([rows[i].tokens]), logits[i : i + 1].clone())[0]
    Penalties(rows, torch.device("cpu"), {}).apply(logits, rows)
    torch.testing.assert_close(logits, expected)


def test_frequency_and_presence_count_the_output_only_as_it_grows() -> None:
    """OpenAI's definition: logit - count * frequency_penalty - (count > 0) * presence_penalty."""
    sampling = Sampling(frequency_penalty=0.5, presence_penalty=0.25)
    tokens = [8, 8, 9]
    rows = [Row(key=0, sampling=sampling, seed=0, tokens=tokens, num_prompt=3)]
    penalties = Penalties(rows, torch.device("cpu"), {})
    for token in (8, 30, 8, 31):
        tokens.append(token)
        logits = torch.zeros(1, VOCAB)
        penalties.apply(logits, rows)
        counts = torch.bincount(torch.tensor(tokens[3:]), minlength=VOCAB)
        torch.testing.assert_close(logits[0], -0.5 * counts - 0.25 * (counts > 0))


def test_repetition_comes_first_and_counts_the_prompt_which_frequency_does_not() -> None:
    sampling = Sampling(repetition_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25)
    rows = [row(sampling, prompt=(3, 3, 4), output=(4,))]
    logits = torch.full((1, VOCAB), 8.0)
    Penalties(rows, torch.device("cpu"), {}).apply(logits, rows)
    assert logits[0, [3, 4, 5]].tolist() == [4.0, 3.25, 8.0]


def test_penalties_count_more_tokens_than_fit_at_first() -> None:
    rows = [row(Sampling(presence_penalty=1.0), output=tuple(range(330)))]
    logits = torch.zeros(1, VOCAB)
    Penalties(rows, torch.device("cpu"), {}).apply(logits, rows)
    assert logits[0].tolist() == [-1.0] * 330 + [0.0] * 3


def test_logit_bias_is_added() -> None:
    logits = torch.zeros(VOCAB)
    logits[10] = 5
    assert sample_one(Sampling(temperature=0.0, logit_bias={20: 5.5}), logits).token_id == 20
    assert sample_one(Sampling(temperature=0.0, logit_bias={10: -100.0, 30: 0.5}), logits).token_id == 30


def test_forbidden_ids_wait_until_min_tokens_are_there() -> None:
    logits = logits_of(2)[0]
    best, second = logits.topk(2).indices.tolist()
    sampling = Sampling(temperature=0.0, min_tokens=3)
    assert sample_one(sampling, logits, forbidden=(best,)).token_id == second
    assert sample_one(sampling, logits).token_id == best
    drawn = {sample_one(Sampling(temperature=1.0), logits, forbidden=(best,), seed=seed).token_id for seed in range(200)}
    assert best not in drawn


@pytest.mark.parametrize("output", [(), (40,), (40, 41), (41, 40), (40, 41, 40, 41), (7, 40)])
def test_bad_words_are_those_of_transformers_within_the_output(output: tuple[int, ...]) -> None:
    bad = [[12], [40, 41], [40, 41, 42], [41, 40, 41, 43]]
    logits = torch.zeros(VOCAB)
    logits[[12, 41, 42, 43]] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    expected = NoBadWordsLogitsProcessor(bad)(torch.tensor([[0, *output]]), logits[None].clone())[0].argmax()
    chosen = sample_one(GREEDY, logits, prompt=(40,), output=output, bad_token_ids=tuple(map(tuple, bad)))
    assert chosen.token_id == int(expected)


def test_bad_words_may_span_no_prompt() -> None:
    logits = torch.zeros(VOCAB)
    logits[41] = 9.0
    assert sample_one(GREEDY, logits, prompt=(40,), bad_token_ids=((40, 41),)).token_id == 41


def test_only_allowed_ids_are_chosen_and_only_in_the_row_that_says_so() -> None:
    logits = logits_of(1, 1)
    best = int(logits[0].argmax())
    rows = [row(Sampling(temperature=0.0, allowed_token_ids=(7, 300))), row(GREEDY)]
    chosen = [score.token_id for score in Sampler(VOCAB, "cpu").sample(logits.clone(), rows)]
    assert chosen == [7 if logits[0, 7] > logits[0, 300] else 300, best]


def test_an_allowed_id_comes_even_when_all_of_them_are_banned() -> None:
    for temperature in (0.0, 1.0):
        sampling = Sampling(temperature=temperature, allowed_token_ids=(7, 8), top_p=0.9)
        assert sample_one(sampling, logits_of(1)[0], forbidden=(7, 8)).token_id in (7, 8)


def test_logprobs_are_the_models_own() -> None:
    """Before temperature, penalties, bias and truncation."""
    sampling = Sampling(temperature=0.5, top_k=3, repetition_penalty=1.5, logit_bias={9: 3.0}, logprobs=4)
    logits = logits_of(8, 9, 8)
    expected = logits[0].log_softmax(-1)
    rows = [row(sampling), row(GREEDY), row(Sampling(logprobs=0))]
    scored, unasked, bare = Sampler(VOCAB, "cpu").sample(logits.clone(), rows)
    assert scored.score is not None
    assert bare.score is not None
    assert scored.score.logprob == pytest.approx(expected[scored.token_id].item(), abs=1e-5)
    assert [a.token_id for a in scored.score.top] == expected.topk(4).indices.tolist()
    assert [a.logprob for a in scored.score.top] == pytest.approx(expected.topk(4).values.tolist(), abs=1e-5)
    assert bare.score.logprob == pytest.approx(expected[bare.token_id].item(), abs=1e-5)
    assert bare.score.top == ()
    assert unasked.score is None


def test_score_gives_prompt_logprobs() -> None:
    logits = logits_of(1, 2)
    scores = Sampler(VOCAB, "cpu").score(logits, [11, 12], 1000)
    for score, expected in zip(scores, logits.log_softmax(-1), strict=True):
        assert score.logprob == pytest.approx(expected[score.token_id].item(), abs=1e-5)
        assert len(score.top) == VOCAB


@pytest.mark.parametrize(
    ("sampling", "bad", "param"),
    [
        (Sampling(logit_bias={VOCAB: 1.0}), (), "logit_bias"),
        (Sampling(logit_bias={-1: 1.0}), (), "logit_bias"),
        (Sampling(allowed_token_ids=(0, 9999)), (), "allowed_token_ids"),
        (Sampling(stop_token_ids=(VOCAB,)), (), "stop_token_ids"),
        (Sampling(), ((1, VOCAB),), "bad_words"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused_by_name(sampling: Sampling, bad: tuple[tuple[int, ...], ...], param: str) -> None:
    with pytest.raises(InvalidRequest, match=str(VOCAB)) as caught:
        check_token_ids(sampling, bad, VOCAB)
    assert caught.value.param == param


def test_ids_in_the_vocabulary_are_accepted() -> None:
    check_token_ids(Sampling(logit_bias={0: 1.0, VOCAB - 1: 1.0}, allowed_token_ids=(0,)), ((1, 2),), VOCAB)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(top_p=0.9), Sampling(top_k=5), Sampling(min_p=0.1)])
def test_logits_that_are_not_numbers_still_give_a_token_and_leave_batch_mates_alone(sampling: Sampling) -> None:
    """A model that overflows must not take the engine down with it."""
    vocab = 300
    good = torch.randn(1, vocab, generator=torch.Generator().manual_seed(3))
    logits = torch.cat([torch.full((1, vocab), torch.nan), good])
    broken, mate = Sampler(vocab, "cpu").sample(logits.clone(), [row(sampling), row(sampling)])
    assert 0 <= broken.token_id < vocab
    assert mate.token_id == Sampler(vocab, "cpu").sample(good.clone(), [row(sampling)])[0].token_id


def test_an_extreme_penalty_leaves_the_logits_finite() -> None:
    logits = torch.full((1, VOCAB), 5.0)
    chosen = Sampler(VOCAB, "cpu").sample(logits, [row(Sampling(repetition_penalty=1e-40), prompt=tuple(range(VOCAB)))])
    assert torch.isfinite(logits).all()
    assert 0 <= chosen[0].token_id < VOCAB
