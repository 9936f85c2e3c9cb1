"""Each architecture against Hugging Face transformers: random weights, the same logits at every position."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from penstock.engine.models.load import read_config
from tests.golden.pages import Pages, files_of, load

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.15,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GEMMA = {"sliding_window": 8, "query_pre_attn_scalar": 6}
QWEN_MOE = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 20}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]}


@dataclass(frozen=True)
class Case:
    """One architecture with one set of options. `length` is that of the prompts, `served` the longest context of the loaded model."""

    name: str
    model_type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    length: int = 40
    served: int | None = None


CASES = [
    Case("llama", "llama"),
    Case("llama-tied-biased", "llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    Case("llama-no-gqa", "llama", {"num_key_value_heads": 4, "head_dim": 12}),
    Case("llama-rope-llama3", "llama", {"rope_parameters": {**LLAMA3, "rope_theta": 500.0}}),
    Case("llama-rope-linear", "llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4}}),
    Case(
        "llama-rope-dynamic",
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, "max_position_embeddings": 16},
        served=40,
    ),
    Case("llama-rope-yarn", "llama", {"rope_parameters": {**YARN, "rope_theta": 1e4}}),
    Case("llama-rope-yarn-mscale", "llama", {"rope_parameters": {**YARN, "rope_theta": 1e4, "mscale": 0.7, "mscale_all_dim": 1.0}}),
    Case("mistral", "mistral", {"sliding_window": None}),
    Case("mistral-window", "mistral", {"sliding_window": 7}),
    Case("qwen2", "qwen2"),
    Case("qwen2-window", "qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    Case("qwen3", "qwen3"),
    Case("qwen3-rope-yarn", "qwen3", {"rope_parameters": {**YARN, "rope_theta": 1e6}}),
    Case("gemma2", "gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    Case("gemma3", "gemma3_text", {**GEMMA, "sliding_window_pattern": 2}),
    Case(
        "gemma3-rope-linear",
        "gemma3_text",
        {**GEMMA, "sliding_window_pattern": 3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    Case("phi3", "phi3", {"sliding_window": 11}),
    Case("phi3-partial-rotary", "phi3", {"partial_rotary_factor": 0.5}),
    Case("phi3-longrope", "phi3", {"rope_parameters": {**LONGROPE, "rope_theta": 1e4}, "original_max_position_embeddings": 16}),
    Case(
        "phi3-longrope-short",
        "phi3",
        {"rope_parameters": {**LONGROPE, "rope_theta": 1e4}, "original_max_position_embeddings": 16},
        length=16,
        served=16,
    ),
    Case(
        "granite",
        "granite",
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 4.0},
    ),
    Case("mixtral", "mixtral", {"num_local_experts": 5, "num_experts_per_tok": 2}),
    Case("mixtral-window", "mixtral", {"num_local_experts": 3, "num_experts_per_tok": 3, "sliding_window": 6}),
    Case("qwen3-moe", "qwen3_moe", {**QWEN_MOE, "norm_topk_prob": True}),
    Case("qwen3-moe-dense-layer", "qwen3_moe", {**QWEN_MOE, "mlp_only_layers": [1]}),
]  # fmt: skip


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
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(case.model_type, **{**SMALL, **case.options})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    folder = tmp_path_factory.mktemp(case.name)
    model.save_pretrained(folder)
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


@pytest.fixture
def pages(golden: Golden, device: str) -> Pages:
    decoder = load(golden.folder, device, max_model_len=golden.case.served)
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
