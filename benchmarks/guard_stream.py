"""What guardrails cost a stream, and whether anything slips through however it is cut.

    python benchmarks/guard_stream.py --prompts QUESTIONS.jsonl[.gz] --answers ANSWERS.jsonl

QUESTIONS has a text per line (`text`, `prompt`, or the first of `turns`), ANSWERS MT-Bench's answers (`choices[0].turns`). For each
set of rules: the time of the whole check of a prompt; of answers cut into pieces of about a token, how many characters wait at a piece,
how many pieces come in before the first goes out, and the processor time that a piece takes. Then a secret made at random is planted into
each answer, and the answer is cut into two at every place in and around it, and into single characters: a leak is an answer that still has
it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import re
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from penstock.core.config import GuardSettings, RuleSettings
from penstock.core.types import Delta, Event, Finish, Message, Request
from penstock.embed import open_vectors
from penstock.guard import Checked, Guard, open_guard

SECRET = RuleSettings(kind="regex", name="secret", patterns=[r"\bpk_[a-z0-9]{24}\b"], action="redact", budget_s=10.0)
PII = RuleSettings(kind="pii", action="redact", budget_s=10.0)
LENGTH = RuleSettings(kind="length", max_chars=100_000)
TOPICS = RuleSettings(kind="topics", patterns=["cooking"], on=["output"], budget_s=10.0, threshold=1.0)
SETS = {"regex": [SECRET], "pii": [PII], "regex, pii, length": [SECRET, PII, LENGTH], "topics, by sentence": [TOPICS]}
PIECE = re.compile(r"\s?\S{1,5}|\s")  # about a token
HELLO = Checked(request=Request(id="r", model="m", messages=(Message(role="user", content="Hello"),)))


def lines(path: Path) -> list[dict[str, object]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line) for line in file]


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def check_ms(guard: Guard, prompts: Sequence[str]) -> list[float]:
    """Milliseconds of each prompt's check, beside a system prompt that was seen before."""
    times = []
    for prompt in prompts:
        messages = (Message(role="system", content="You are a helpful assistant."), Message(role="user", content=prompt))
        started = time.perf_counter()
        await guard.check(Request(id="r", model="m", messages=messages), lambda _: None)
        times.append((time.perf_counter() - started) * 1e3)
    return times


class Upstream:
    """An answer that comes piece by piece. `waited`: the characters that were held back when all that could go had gone."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = pieces
        self._given = 0
        self.count = 0
        self.sent = 0
        self.waited: list[int] = []

    async def events(self) -> AsyncGenerator[Event, None]:
        for piece in self._pieces:
            self._given += len(piece)
            self.count += 1
            yield Delta(text=piece)
            self.waited.append(self._given - self.sent)
        yield Delta(finish_reason="stop")
        yield Finish(reason="stop")


async def said(guard: Guard, pieces: Sequence[str]) -> tuple[str, list[int], int]:
    """What comes out, how many characters waited at each piece, and how many pieces had come before the first went out."""
    upstream, out, first = Upstream(pieces), [], 0
    async with aclosing(guard.watch(HELLO, upstream.events(), lambda _: None)) as events:
        async for event in events:
            if isinstance(event, Delta) and event.text:
                out.append(event.text)
                first = first or upstream.count
                upstream.sent += len(event.text)
    return "".join(out), upstream.waited, first


async def cost(guard: Guard, answers: Sequence[str]) -> dict[str, float]:
    waits, firsts, pieces = [], [], 0
    started = time.process_time()
    for answer in answers:
        cut = PIECE.findall(answer)
        _, waited, first = await said(guard, cut)
        waits += waited
        firsts.append(first)
        pieces += len(cut)
    spent_us = (time.process_time() - started) * 1e6 / pieces
    return {
        "held_p50": percentile(waits, 0.5),
        "held_p99": percentile(waits, 0.99),
        "held_max": max(waits),
        "first_piece_mean": statistics.mean(firsts),
        "first_piece_max": max(firsts),
        "cpu_us_per_piece": spent_us,
    }


async def leaks(guard: Guard, answers: Sequence[str], rng: random.Random) -> tuple[int, int]:
    """Leaks and streams."""
    leaked = streams = 0
    for answer in answers:
        secret = "pk_" + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=24))
        at = rng.randrange(len(answer) + 1)
        text = f"{answer[:at]} {secret} {answer[at:]}"
        cuts = range(max(0, at - 2), min(len(text), at + len(secret) + 4))
        for pieces in [*([text[:cut], text[cut:]] for cut in cuts), list(text)]:
            out, *_ = await said(guard, pieces)
            streams += 1
            leaked += secret in out or out != text.replace(secret, "[SECRET]")
    return leaked, streams


async def main(arguments: argparse.Namespace) -> None:
    rng = random.Random(arguments.seed)
    rows = lines(arguments.prompts)
    prompts = [str(row.get("text") or row.get("prompt") or row["turns"][0]) for row in rows]  # type: ignore[index]
    answers = [turn for row in lines(arguments.answers) for turn in row["choices"][0]["turns"]]  # type: ignore[index]
    answers = answers[: arguments.most]
    vectors = open_vectors("static")
    print(f"{len(prompts)} prompts, {len(answers)} answers, median {statistics.median(map(len, answers)):.0f} characters")
    print(
        f"{'rules':<24}{'check p50':>10}{'p99 ms':>9}{'held p50':>9}{'p99':>5}{'max':>5}{'first piece':>12}{'max':>5}{'CPU µs/piece':>14}"
    )
    result: dict[str, object] = {}
    for name, rules in SETS.items():
        guard = await open_guard(GuardSettings(rules=rules), lambda: vectors)
        checks, stream = await check_ms(guard, prompts), await cost(guard, answers)
        p50, p99 = percentile(checks, 0.5), percentile(checks, 0.99)
        held = f"{stream['held_p50']:>9.0f}{stream['held_p99']:>5.0f}{stream['held_max']:>5.0f}"
        first = f"{stream['first_piece_mean']:>12.2f}{stream['first_piece_max']:>5.0f}"
        print(f"{name:<24}{p50:>10.3f}{p99:>9.3f}{held}{first}{stream['cpu_us_per_piece']:>14.1f}")
        result[name] = {"check_p50_ms": p50, "check_p99_ms": p99, **stream}
    guard = await open_guard(GuardSettings(rules=[SECRET]), lambda: vectors)
    leaked, streams = await leaks(guard, answers, rng)
    print(f"{leaked} of {streams} streams leaked or differed (95 % interval: at most {3 / streams:.5f} where none did)")
    print(json.dumps({**result, "leaks": leaked, "leak_streams": streams}))
    await vectors.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--most", type=int, default=60, help="answers that are streamed")
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(main(parser.parse_args()))
