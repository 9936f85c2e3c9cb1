"""Times `transformers` in eager PyTorch: the model's forward with its dynamic cache, greedy choice, one static batch."""

from __future__ import annotations

import time

import torch
from protocol import Case, answer, case, repetitions
from transformers import AutoModelForCausalLM, DynamicCache


@torch.inference_mode()
def main() -> None:
    given = case(__doc__)
    torch.set_num_threads(given.threads)
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=getattr(torch, given.format)).eval()
    load_s = time.perf_counter() - started
    prefill(model, 64, given)
    answer(
        {length: [prefill(model, length, given) for _ in range(given.repeat)] for length in given.prompts},
        {clients: decode(model, clients, given) for clients in given.clients},
        load_s=load_s,
    )


def prefill(model: torch.nn.Module, length: int, given: Case) -> float:
    started = time.perf_counter()
    forward(model, prompts(1, length, given), DynamicCache())
    return length / (time.perf_counter() - started)


def decode(model: torch.nn.Module, clients: int, given: Case) -> list[float]:
    cache = DynamicCache()
    last = forward(model, prompts(clients, given.prompt_tokens, given), cache)

    def step() -> None:
        nonlocal last
        last = forward(model, last, cache)

    return repetitions(given, clients, step)


def forward(model: torch.nn.Module, ids: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
    """The next token of each row."""
    logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return logits[:, -1:].argmax(-1)


def prompts(clients: int, length: int, given: Case) -> torch.Tensor:
    return torch.randint(10, given.vocab_size, (clients, length))


main()
