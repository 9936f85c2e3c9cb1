"""What a request asks of its tokens holds whatever the engine does meanwhile.

Each way of sampling runs once alone in a roomy engine and once in a cramped one: prompts in odd chunks, prefixes from the
cache, sequences preempted and resumed, batch mates that sample in other ways. The tokens and scores must be the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.engine import Engine
from penstock.engine.kernels.cpu.library import libraries
from penstock.engine.loading import load_engine
from penstock.engine.messages import Job, Output
from penstock.engine.models.load import read_config
from penstock.files import locate
from tests.golden import gguf_export
from tests.golden.architectures import CASES, SMALL, random_model

MODELS = {"llama": (), "mistral-window": ("sliding window",), "mixtral": ("MoE",), "gguf": ("GGUF",)}
FEW_BITS: dict[str, dict[str, str]] = {
    "int8 weights": {"weights": "int8"},
    "int4 weights": {"weights": "int4"},
    "int8 KV": {"kv_format": "int8"},
    "int4 KV": {"kv_format": "int4"},
}
WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}  # rows that divide into groups
NEEDS_KERNELS = pytest.mark.skipif(not libraries(), reason="penstock was installed without a C++ compiler")
STRESS = ("continuous batching", "chunked prefill", "prefix cache", "preemption")
WAYS: dict[str, dict[str, object]] = {
    "greedy": {"temperature": 0.0},
    "sampling": {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "seed": 5},
    "seed": {"seed": 11},
    "penalties": {"temperature": 0.0, "repetition_penalty": 1.4, "frequency_penalty": 0.7, "presence_penalty": 0.5},
    "logit bias": {"seed": 3, "logit_bias": {7: 4.0, 8: -100.0}},
    "logprobs": {"seed": 4, "logprobs": 3},
    "prompt logprobs": {"seed": 4, "prompt_logprobs": 2},
    "min tokens": {"seed": 9, "min_tokens": 9, "ignore_eos": False, "logit_bias": {2: 9.0}},
    "bad words": {"seed": 10},
    "allowed tokens": {"seed": 6, "allowed_token_ids": tuple(range(20, 60))},
    "stop token ids": {"seed": 8, "stop_token_ids": tuple(range(50, 60)), "max_tokens": 12},
}


@dataclass(frozen=True)
class Subject:
    """A model, and how it is held."""

    path: str
    held: dict[str, str]

    def load(self, **changes: object) -> Engine:
        return load_engine(self.path, EngineSpec(**{"max_model_len": 48, "dtype": "float32", **self.held, **changes}), lambda *_: None)

    def load_cramped(self) -> Engine:
        """Few blocks and small steps. Native kernels want larger blocks."""
        if not self.held:
            block_bytes = 4 * read_config(locate(self.path)).kv_bytes_per_token(torch.float32)
            return self.load(block_size=4, kv_bytes=18 * block_bytes, max_step_tokens=11, max_num_seqs=6, watermark=0.0)
        plan = self.load().info.plan
        kv_bytes = 6 * plan.kv_bytes // plan.num_blocks
        return self.load(kv_bytes=kv_bytes, max_step_tokens=11, max_num_seqs=6, watermark=0.0)


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(name, marks=pytest.mark.feature(*features)) for name, features in MODELS.items()),
        *(pytest.param(name, marks=(pytest.mark.feature(name), NEEDS_KERNELS)) for name in FEW_BITS),
    ],
)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    held = FEW_BITS.get(request.param, {})
    case = next(c for c in CASES if c.name == (request.param if request.param in MODELS and request.param != "gguf" else "llama"))
    random_model(replace(case, options={**case.options, **WIDE}) if held else case, folder)
    if request.param != "gguf":
        return Subject(str(folder), held)
    gguf_export.export(folder, folder / "model.gguf")
    return Subject(str(folder / "model.gguf"), held)


def job(name: str, prompt: list[int], way: str, salt: str = "") -> Job:
    sampling = Sampling(**{"max_tokens": 14, "ignore_eos": True, **WAYS[way]})
    bad = ((31,), (32, 33), (40,)) if way == "bad words" else ()
    return Job(id=name, prompt=tuple(prompt), sampling=sampling, bad_token_ids=bad, salt=salt)


def finish(engine: Engine, produced: dict[str, list[Output]]) -> None:
    while engine.has_work:
        for output in engine.step():
            produced.setdefault(output.id, []).append(output)
        engine.audit()


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.feature(way, *STRESS)) for way in WAYS])
def test_tokens_do_not_depend_on_what_happens_meanwhile(model: Subject, way: str) -> None:
    prompt = torch.randint(3, SMALL["vocab_size"], (26,), generator=torch.Generator().manual_seed(1)).tolist()
    roomy = model.load()
    alone: dict[str, list[Output]] = {}
    roomy.add(job("alone", prompt, way))
    finish(roomy, alone)

    cramped = model.load_cramped()
    crowd: dict[str, list[Output]] = {}
    for number, other in enumerate((*WAYS, way, way)):
        cramped.add(job(f"{number} {other}", prompt[: 26 - number % 3], other, salt=str(number % 2)))
        for output in cramped.step():
            crowd.setdefault(output.id, []).append(output)
    same = job("same", prompt, way, salt="0")
    cramped.add(same)
    finish(cramped, crowd)

    assert tokens(crowd["same"]) == tokens(alone["alone"])
    assert len(tokens(alone["alone"])) > 1
    # Beside KV in codes, queries have 15 bits, in units that depend on which rows are computed together.
    assert scores(crowd["same"]) == pytest.approx(scores(alone["alone"]), abs=5e-3 if "kv_format" in model.held else 1e-4, nan_ok=True)
    assert cramped.scheduler.counters.preemptions > 0
    assert cramped.scheduler.counters.prefix_hits > 0


def tokens(outputs: list[Output]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def scores(outputs: list[Output]) -> list[float]:
    """Log-probabilities of the prompt, then of the answer; none where none were asked for."""
    prompt = [s.logprob for output in outputs for s in output.prompt_scores or () if s is not None]
    return prompt + [s.logprob for output in outputs for s in output.scores or ()]
