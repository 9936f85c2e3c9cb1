"""The greedy text of a random model of each architecture through the whole engine is that of transformers.

Meanwhile everything happens that may not change it: prompts go in odd chunks beside decodes, prefixes are found in the
cache, sequences are preempted and resumed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.loading import load_engine
from penstock.engine.messages import Job
from penstock.engine.models.load import read_config
from penstock.files import locate
from tests.golden.architectures import CASES, SMALL, Case, random_model

# Rope that depends on the length is settled when the model is loaded, transformers settles it anew for each request;
# test_transformers compares these at one length.
FIXED_ROPE = [case for case in CASES if case.served is None and case.name != "phi3-longrope"]
NUM_OUTPUT = 12
LENGTHS = (3, 9, 14, 21, 26, 26)


@pytest.mark.feature("greedy", "continuous batching", "chunked prefill", "prefix cache", "preemption")
@pytest.mark.parametrize("case", FIXED_ROPE, ids=lambda case: case.name)
def test_greedy_text_is_that_of_transformers(case: Case, device: str, tmp_path: Path) -> None:
    model = random_model(case, tmp_path)
    text = torch.randint(3, SMALL["vocab_size"], (1, max(LENGTHS)))
    prompts = [text[0, :length].tolist() for length in LENGTHS]
    spec = EngineSpec(
        device=device,
        max_model_len=48,
        block_size=4,
        kv_bytes=16 * 4 * read_config(locate(str(tmp_path))).kv_bytes_per_token(torch.float32),
        max_step_tokens=11,
        max_num_seqs=6,
        watermark=0.0,
        dtype="float32",
    )
    engine = load_engine(str(tmp_path), spec, lambda *_: None)
    sampling = Sampling(temperature=0.0, max_tokens=NUM_OUTPUT, ignore_eos=True)
    produced: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        name = str(number)
        engine.add(Job(id=name, prompt=tuple(prompt), sampling=sampling, salt=str(number // 2)))
        produced[name] = []
        for output in engine.step():
            produced[output.id] += output.token_ids
    while engine.has_work:
        for output in engine.step():
            produced[output.id] += output.token_ids
        engine.audit()
    for number, prompt in enumerate(prompts):
        assert produced[str(number)] == greedy(model, prompt), f"prompt {number} of {len(prompt)} tokens"
    assert engine.scheduler.counters.preemptions > 0
    assert engine.scheduler.counters.prefix_hits > 0


def greedy(model: torch.nn.Module, prompt: list[int]) -> list[int]:
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(NUM_OUTPUT):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]
