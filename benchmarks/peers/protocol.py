"""What every engine is asked for: the runners' common arguments, timing and answer.

    prefill P   one prompt of P random tokens, from its submission to its first token: P / seconds
    decode C    C clients that decode together, each holding `context` tokens in the middle of the timed steps:
                C * `tokens` / seconds of `tokens` steps; the prompts before them are not timed

Each figure has `repeat` repetitions, listed in the answer as they came; whoever reads it takes the median. A runner is a program
of its own in the peer's environment; its last line is JSON: {"prefill": {"512": [...]}, "decode": {"1": [...]}, ...}.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

WARM_STEPS = 2  # steps after the prompts that are not timed


class Case(argparse.Namespace):
    """One engine, model and format. Lengths in tokens."""

    model: str
    format: str
    threads: int
    prompts: list[int]
    clients: list[int]
    context: int
    tokens: int
    repeat: int
    vocab_size: int

    @property
    def prompt_tokens(self) -> int:
        """Of each client when decoding: such that `context` is the middle of all timed steps."""
        return max(1, self.context - WARM_STEPS - self.tokens * self.repeat // 2)

    @property
    def max_model_len(self) -> int:
        return max([*self.prompts, self.context + self.tokens * self.repeat]) + 16


def case(doc: str | None) -> Case:
    """The case on the command line."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or file, as the engine takes it")
    parser.add_argument("--format", default="float32", help="of the weights, as the engine calls it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, nargs="*", default=[512, 2048], help="prompt lengths to time")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32], help="numbers of clients to time")
    parser.add_argument("--context", type=int, default=256, help="tokens each client holds in the middle of the timed steps")
    parser.add_argument("--tokens", type=int, default=32, help="steps in one repetition")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--vocab-size", type=int, default=2000, help="random tokens are below it")
    return parser.parse_args(namespace=Case())


def repetitions(case: Case, clients: int, step: Callable[[], None]) -> list[float]:
    """Tokens/s of `repeat` runs of `tokens` steps, the clients' prompts being computed already."""
    for _ in range(WARM_STEPS):
        step()
    found = []
    for _ in range(case.repeat):
        started = time.perf_counter()
        for _ in range(case.tokens):
            step()
        found.append(clients * case.tokens / (time.perf_counter() - started))
    return found


def answer(prefill: dict[int, list[float]], decode: dict[int, list[float]], **more: object) -> None:
    """Print the figures, tokens/s, and whatever else is worth telling."""
    print(json.dumps({"prefill": prefill, "decode": decode, **more}), flush=True)
