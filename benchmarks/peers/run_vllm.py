"""Times vLLM's CPU build: `LLMEngine.step()` in this process, no scheduling process beside it."""

from __future__ import annotations

import os
import time

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "3",  # GB
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}

import numpy as np
from protocol import Case, answer, case, repetitions
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.inputs import TokensPrompt

RNG = np.random.default_rng(0)


def main() -> None:
    given = case(__doc__)
    started = time.perf_counter()
    engine = LLMEngine.from_engine_args(
        EngineArgs(
            model=given.model, dtype=given.format, max_model_len=given.max_model_len, max_num_seqs=64, max_num_batched_tokens=4096,
            enable_prefix_caching=False, skip_tokenizer_init=True,
        )
    )  # fmt: skip
    load_s = time.perf_counter() - started
    prefill(engine, 64, given)
    answer(
        {length: [prefill(engine, length, given) for _ in range(given.repeat)] for length in given.prompts},
        {clients: decode(engine, clients, given) for clients in given.clients},
        load_s=load_s,
    )


def add(engine: LLMEngine, length: int, tokens: int, given: Case) -> str:
    name = str(time.perf_counter_ns())
    prompt = TokensPrompt(prompt_token_ids=RNG.integers(10, given.vocab_size, length).tolist())
    engine.add_request(name, prompt, SamplingParams(max_tokens=tokens, min_tokens=tokens, ignore_eos=True, temperature=0, detokenize=False))
    return name


def prefill(engine: LLMEngine, length: int, given: Case) -> float:
    add(engine, length, 1, given)
    started = time.perf_counter()
    while engine.has_unfinished_requests():
        engine.step()
    return length / (time.perf_counter() - started)


def decode(engine: LLMEngine, clients: int, given: Case) -> list[float]:
    names = [add(engine, given.prompt_tokens, given.max_model_len - given.prompt_tokens, given) for _ in range(clients)]
    begun: set[str] = set()
    while len(begun) < clients:
        begun |= {output.request_id for output in engine.step() if output.outputs[0].token_ids}
    found = repetitions(given, clients, engine.step)
    engine.abort_request(names)
    while engine.has_unfinished_requests():
        engine.step()
    return found


if __name__ == "__main__":
    main()
