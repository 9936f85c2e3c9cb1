"""The cascade on two real models, by the very path that clients take: what is kept, how right it is, what it saves.

    python benchmarks/cascade.py                                      the built-in models
    python benchmarks/cascade.py --small penstock-mini --large FOLDER --items 1500 --quality 0.98
    python benchmarks/cascade.py --samples 5                          besides: what a vote of five is worth

Questions are held-out items of the built-in models' curriculum, in the mixture of its weights, from the half on which nothing was
calibrated (training/cascade.py). Each is asked of the small model alone, of the large one alone, and of the cascade; engines run in
processes of their own with one core each. Engine seconds are what the engines themselves billed (prefill and decode), so that cost
is seconds times the price of a machine. `--samples` asks the small model again, at temperature 0.7: for a single sample, and for
the majority of several; and tells whether the share of samples that agree says more about the greedy answer than its own tokens do.
Intervals are 95 %: Wilson's for shares, bootstrap over questions for the rest.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
from figures import wilson
from msgspec import Struct
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1]))

from penstock.app.calibration import CONCURRENT, Question, make_request
from penstock.app.stack import Stack, build
from penstock.core.config import EmbeddingSettings, LedgerSettings, PageSettings, RouterSettings
from penstock.core.types import Attempt, Delta, Options, Request
from penstock.router.calibrate import area, calibration_error
from penstock.router.confidence import Reading, calibrations
from training.cascade import MIDI, MINI, items, served

DRAWS = 2000
RATIO = 10  # price of the large model's token, where the small one's is 1


class Answer(Struct):
    """What came of one question."""

    right: bool
    kept: bool
    confidence: float  # of the whole answer; only where the small model was asked alone
    agreed: float  # share of the samples that have the final answer of the one given
    attempts: tuple[Attempt, ...]

    @property
    def engine_s(self) -> float:
        return sum(attempt.use.prefill_s + attempt.use.decode_s for attempt in self.attempts if attempt.use)


class Pass(Struct):
    """All questions, asked in one way."""

    answers: list[Answer]
    wall_s: float

    @property
    def right(self) -> np.ndarray:
        return np.array([answer.right for answer in self.answers], dtype=float)

    @property
    def engine_s(self) -> float:
        return sum(answer.engine_s for answer in self.answers)

    @property
    def tokens(self) -> int:
        return sum(attempt.usage.completion_tokens for answer in self.answers for attempt in answer.attempts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", default=MINI, help="a built-in name or a folder")
    parser.add_argument("--large", default=MIDI, help="a built-in name or a folder")
    parser.add_argument("--calibration", default="", help="of the small model; default: the one that comes with it")
    parser.add_argument("--items", type=int, default=1500)
    parser.add_argument("--quality", type=float, default=0.98, help="of the large model's accuracy, to be kept")
    parser.add_argument("--sampled", action="store_true", help="as the models sample by default, not greedily")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--samples", type=int, default=0, help="measure a vote of so many samples, too")
    asyncio.run(measure(parser.parse_args()))


async def measure(given: argparse.Namespace) -> None:
    settings = served(given.small, given.large)
    small, large = (model.name for model in settings.models)
    router = RouterSettings(
        policy="cascade", tiers={"simple": small, "complex": large}, quality=given.quality, calibration=given.calibration, sticky=False
    )
    settings = replace(
        settings,
        router=router,
        ledger=LedgerSettings(database="memory"),
        page=PageSettings(enabled=False),
        embeddings=EmbeddingSettings(enabled=False),
    )
    stack = await build(settings, lambda *_: None)
    try:
        known = calibrations(router, {small: settings.models[0].model, large: settings.models[1].model})[small]
        questions = [question for _, question in items("report", given.items, given.seed)]
        ask = Asker(stack, questions, greedy=not given.sampled)
        await ask.all(small, first=64)  # warms the engines up
        await ask.all(large, first=64)
        alone = await ask.all(small, confidence=known.confidence)
        larger = await ask.all(large)
        both = await ask.all("auto")
        voted = await vote(ask, small, alone, given.samples) if given.samples else {}
    finally:
        await stack.close()
    report(given, (alone, larger, both), known.trust_for(given.quality), voted)


async def vote(ask: Asker, small: str, alone: Pass, samples: int) -> dict[str, object]:
    """What a majority is worth, and whether agreement tells more of the greedy answer than its tokens' probabilities."""
    single = await ask.all(small, sampled=1)
    majority = await ask.all(small, sampled=samples)
    agree = np.array([answer.agreed for answer in majority.answers])
    sure = np.array([answer.confidence for answer in alone.answers])
    logits = np.log(np.clip(sure, 1e-6, 1 - 1e-6) / np.clip(1 - sure, 1e-6, 1))
    return {
        "single_accuracy": share(single.right),
        "majority_accuracy": share(majority.right),
        "vote_engine_s": [round(single.engine_s, 2), round(majority.engine_s, 2)],
        "auc_of_agreement": round(area(agree, alone.right), 4),
        "auc_of_both": round(max(area(logits + weight * agree, alone.right) for weight in (0.5, 1, 2, 4)), 4),
    }


class Asker:
    """Puts questions through the pipeline, some at a time."""

    def __init__(self, stack: Stack, questions: Sequence[Question], *, greedy: bool) -> None:
        self.pipeline, self.questions, self.greedy = stack.pipeline, questions, greedy

    async def all(
        self, model: str, *, confidence: Callable[[Reading], float] | None = None, first: int | None = None, sampled: int = 0
    ) -> Pass:
        slots = asyncio.Semaphore(CONCURRENT)

        async def one(question: Question) -> Answer:
            async with slots:
                request = make_request(self.pipeline, model, question.prompt, greedy=self.greedy)
                if confidence is None:
                    request = replace(request, sampling=replace(request.sampling, logprobs=None))
                if sampled:
                    sampling = replace(request.sampling, temperature=0.7, top_p=1.0)
                    request = replace(request, sampling=sampling, options=Options(samples=sampled))
                return await self._one(request, question, confidence)

        started_s = time.monotonic()
        answers = await asyncio.gather(*map(one, self.questions[:first]))
        return Pass(answers, time.monotonic() - started_s)

    async def _one(self, request: Request, question: Question, confidence: Callable[[Reading], float] | None) -> Answer:
        progress, reading, text = self.pipeline.begin(request), Reading(), ""
        async with aclosing(self.pipeline.run(request, progress)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    text += event.text
                    reading.see(event.text, event.logprobs)
        ended = progress.ended
        if ended is None or ended.finish.failure is not None:
            sys.exit(f"a question failed: {ended and ended.finish.failure}")
        kept = any(said.rule == "cascade" and said.action == "kept" for said in ended.judgements)
        sure = confidence(reading) if confidence is not None else 0.0
        agreed = next((said.score or 0.0 for said in ended.judgements if said.rule == "vote"), 0.0)
        return Answer(question.right(text), kept, sure, agreed, ended.attempts)


def report(given: argparse.Namespace, passes: tuple[Pass, Pass, Pass], trust: float, voted: dict[str, object]) -> None:
    alone, larger, both = passes
    name = alone.answers[0].attempts[0].route.model
    small, large, cascade = alone.right, larger.right, both.right
    kept = np.array([answer.kept for answer in both.answers], dtype=float)
    sure = np.array([answer.confidence for answer in alone.answers])
    line = {
        "items": len(small),
        "quality": given.quality,
        "trust": round(trust, 4),
        "kept": share(kept),
        "small_accuracy": share(small),
        "large_accuracy": share(large),
        "cascade_accuracy": share(cascade),
        "retained": resampled(lambda rows: cascade[rows].sum() / large[rows].sum(), len(small)),
        "auc": resampled(lambda rows: area(sure[rows], small[rows]), len(small)),
        "calibration_error": round(calibration_error(sure, small), 4),
        "kept_accuracy": share(cascade[kept == 1]),
        "large_engine_s": round(larger.engine_s, 2),
        "cascade_engine_s": round(both.engine_s, 2),
        "small_engine_s": round(alone.engine_s, 2),
        "saved": round(1 - both.engine_s / larger.engine_s, 4),
        "saved_at_alone_rates": round(1 - at_rates(both, alone, larger, name) / larger.engine_s, 4),
        "saved_if_10x": round(1 - priced(both, name) / priced(larger, name), 4),
        "small_tokens_before_stop": stopped(alone, both),
        "wall_s": {"small": round(alone.wall_s, 1), "large": round(larger.wall_s, 1), "cascade": round(both.wall_s, 1)},
        **voted,
    }
    for what, value in line.items():
        interval = isinstance(value, list) and len(value) == 3
        print(f"{what:26} {'{:.4f}   [{:.4f}, {:.4f}]'.format(*value) if interval else value}")
    print(json.dumps({"benchmark": "cascade", **line}))


def stopped(alone: Pass, both: Pass) -> float:
    """Of what the small model would have said where it was not kept, the share that it had said before it was stopped."""
    pairs = [(one, two) for one, two in zip(alone.answers, both.answers, strict=True) if not two.kept]
    whole = sum(one.attempts[0].usage.completion_tokens for one, _ in pairs)
    return round(sum(two.attempts[0].usage.completion_tokens for _, two in pairs) / max(whole, 1), 4)


def at_rates(both: Pass, alone: Pass, larger: Pass, small: str) -> float:
    """Engine seconds of the cascade, were each model's token as fast as where it was asked alone: engines that share cores slow each
    other down, and their seconds are by the clock."""
    rates = {model is alone: model.engine_s / model.tokens for model in (alone, larger)}
    attempts = [attempt for answer in both.answers for attempt in answer.attempts]
    return sum(attempt.usage.completion_tokens * rates[attempt.route.model == small] for attempt in attempts)


def priced(asked: Pass, small: str) -> int:
    """In tokens of the small model, were the large one's `RATIO` times as dear; prompt and answer tokens alike."""
    attempts = (attempt for answer in asked.answers for attempt in answer.attempts)
    return sum(attempt.usage.total_tokens * (1 if attempt.route.model == small else RATIO) for attempt in attempts)


def share(values: np.ndarray) -> list[float]:
    """A share and Wilson's interval."""
    right, n = int(values.sum()), len(values)
    return [round(value, 4) for value in (right / max(n, 1), *wilson(right, n))]


def resampled(statistic: Callable[[np.ndarray], float], count: int) -> list[float]:
    """A statistic of all questions and its interval over bootstrap samples of them."""
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.integers(0, count, count)) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return [round(float(value), 4) for value in (statistic(np.arange(count)), low, high)]


if __name__ == "__main__":
    main()
