"""Each architecture against Hugging Face transformers: random weights, the same logits at every position."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penstock.engine.models.load import read_config
from penstock.engine.models.native import why_not_native
from tests.golden.architectures import CASES, SMALL, Case, random_model
from tests.golden.pages import NATIVE_BLOCK_SIZE, Pages, files_of, load, load_native


@dataclass(frozen=True)
class Golden:
    """A saved random model and what transformers says of four prompts."""

    case: Case
    folder: Path
    num_parameters: int
    prompts: list[list[int]]
    logits: list[Tensor]  # each [tokens, vocab]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    case: Case = request.param
    folder = tmp_path_factory.mktemp(case.name)
    model = random_model(case, folder)
    lengths = [case.length, case.length // 2, case.length - 3, 5]
    texts = torch.randint(3, SMALL["vocab_size"], (len(lengths), case.length))  # longrope and dynamic depend on the whole length
    with torch.no_grad():
        logits = model(texts).logits
    return Golden(
        case=case,
        folder=folder,
        num_parameters=model.num_parameters(),
        prompts=[text[:length].tolist() for text, length in zip(texts, lengths, strict=True)],
        logits=[row[:length] for row, length in zip(logits, lengths, strict=True)],
    )


@pytest.fixture(params=["cpu", "native", pytest.param("cuda", marks=pytest.mark.gpu)])
def pages(request: pytest.FixtureRequest, golden: Golden) -> Pages:
    if request.param != "native":
        decoder = load(golden.folder, request.param, max_model_len=golden.case.served)
    elif reason := why_not_native(read_config(files_of(golden.folder)), NATIVE_BLOCK_SIZE):
        pytest.skip(reason)
    else:
        decoder = load_native(golden.folder, max_model_len=golden.case.served)
    return Pages(decoder, num_seqs=len(golden.prompts), max_len=golden.case.length)


Schedule = Iterator[dict[int, int]]  # per step: how many tokens of which sequences


def in_one_step(lengths: list[int]) -> Schedule:
    yield dict(enumerate(lengths))


def one_after_another(lengths: list[int]) -> Schedule:
    for seq, length in enumerate(lengths):
        yield {seq: length}


def odd_chunks(lengths: list[int]) -> Schedule:
    for seq, length in enumerate(lengths):
        for size in (3, 1, 7, 5, 11, length):
            yield {seq: size}


def prompt_then_decode(lengths: list[int]) -> Schedule:
    yield dict.fromkeys(range(len(lengths)), 4)
    for _ in range(max(lengths)):
        yield dict.fromkeys(range(len(lengths)), 1)


def mixed(lengths: list[int]) -> Schedule:
    """Decodes and chunks of any size side by side, the sequences in any order."""
    rng = random.Random(0)
    for _ in range(20 * len(lengths)):
        seqs = rng.sample(range(len(lengths)), rng.randint(1, len(lengths)))
        yield {seq: rng.choice((1, 1, 1, 2, 3, 6, 9)) for seq in seqs}


@pytest.mark.parametrize("schedule", [in_one_step, one_after_another, odd_chunks, prompt_then_decode, mixed])
def test_logits_equal_those_of_transformers_however_the_tokens_are_scheduled(
    golden: Golden, pages: Pages, schedule: Callable[[list[int]], Schedule]
) -> None:
    done = dict.fromkeys(range(len(golden.prompts)), 0)
    for sizes in schedule([len(prompt) for prompt in golden.prompts]):
        new = {seq: golden.prompts[seq][done[seq] :][:size] for seq, size in sizes.items() if done[seq] < len(golden.prompts[seq])}
        for seq, logits in pages.step(new).items() if new else ():
            expected = golden.logits[seq][done[seq] : done[seq] + len(logits)]
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
            done[seq] += len(logits)
    assert list(done.values()) == [len(prompt) for prompt in golden.prompts]


def test_parameters_are_counted_as_transformers_counts_them(golden: Golden) -> None:
    assert read_config(files_of(golden.folder)).num_parameters == golden.num_parameters


def test_logits_would_differ_were_the_weights_trivial(golden: Golden) -> None:
    """Guards the tests above: with flat logits they would compare nothing."""
    assert golden.logits[0].std() > 0.1
