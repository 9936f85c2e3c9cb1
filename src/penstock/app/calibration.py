"""Asks two models the same questions, for a calibration of the smaller one: by the pipeline, as clients ask them.

Half of the questions are answered greedily, half as the model samples by default, so that the calibration holds for both.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.app.bars import LoadingBars
from penstock.app.stack import build
from penstock.core.config import EmbeddingSettings, LedgerSettings, PageSettings, RouterSettings
from penstock.core.errors import LoadError, UserError, from_failure
from penstock.core.settings import Settings
from penstock.core.types import Delta, Finish, Message, Request
from penstock.files import locate
from penstock.pipeline import Pipeline
from penstock.router.calibrate import Graded, Names, calibrate
from penstock.router.confidence import ALTERNATIVES, Calibration, Reading
from penstock.upstream.final import final_answer

CONCURRENT = 32  # questions under way
MAX_TOKENS = 512  # of an answer
TOGETHER = 4 * 2**20  # bytes of weights that are read at a time


class Question(Struct, frozen=True):
    """A prompt, and what tells a right answer to it."""

    prompt: str
    right: Callable[[str], bool]


class Reply(Struct, frozen=True):
    """A whole answer, what was read of its tokens, and whether it ended by itself."""

    text: str
    reading: Reading
    whole: bool


class _Row(Struct):
    prompt: str
    answer: str | list[str]


async def calibrated(settings: Settings, small: str, large: str, questions: Sequence[Question]) -> Calibration:
    """The calibration of `small`, beside `large`; both are served by `settings`. Raises UserError, and what loading raises."""
    plain = replace(
        settings,
        router=RouterSettings(),
        ledger=LedgerSettings(database="memory"),
        embeddings=EmbeddingSettings(enabled=False),
        page=PageSettings(enabled=False),
    )
    with LoadingBars(enabled=True) as bars:
        stack = await build(plain, bars)
    try:
        smaller = await replies(stack.pipeline, small, questions)
        larger = await replies(stack.pipeline, large, questions)
    finally:
        await stack.close()
    names = Names(model=small, larger=large, digest=_digest(settings, small))
    return calibrate(grade(questions, smaller, larger), names)


async def replies(pipeline: Pipeline, model: str, questions: Sequence[Question], *, greedy: bool | None = None) -> list[Reply]:
    """The answers of `model`, in order. `greedy` None: those of even places. Raises the first failure."""
    slots = asyncio.Semaphore(CONCURRENT)

    async def answered(place: int, question: Question) -> Reply:
        async with slots:
            cold = place % 2 == 0 if greedy is None else greedy
            return await _reply(pipeline, make_request(pipeline, model, question.prompt, greedy=cold))

    tasks = [asyncio.create_task(answered(place, question)) for place, question in enumerate(questions)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def make_request(pipeline: Pipeline, model: str, prompt: str, *, greedy: bool) -> Request:
    """A chat of one turn, with all that confidence is read from."""
    sampling = replace(pipeline.default_sampling(model), logprobs=ALTERNATIVES, max_tokens=MAX_TOKENS)
    if greedy:
        sampling = replace(sampling, temperature=0.0)
    return Request(id=f"calibrate-{uuid.uuid4().hex}", model=model, messages=(Message(role="user", content=prompt),), sampling=sampling)


def grade(questions: Sequence[Question], smaller: Sequence[Reply], larger: Sequence[Reply]) -> list[Graded]:
    """Answers that a cascade would never keep, since they were cut off, are left out."""
    rows = zip(questions, smaller, larger, strict=True)
    return [Graded(small.reading, question.right(small.text), question.right(large.text)) for question, small, large in rows if small.whole]


def read_questions(path: Path) -> list[Question]:
    """JSON lines with `prompt` and `answer`, one or several that are as good. Raises UserError.

    A reply is right when its final answer is that of one of them (`upstream.final`).
    """
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
        rows = [msgspec.json.decode(line, type=_Row) for line in lines]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        hint = 'each line is {"prompt": "…", "answer": "…"}, or with a list of answers'
        raise UserError(f"{path} is not what can be calibrated on: {error}", hint=hint) from None
    return [Question(row.prompt, _matches([row.answer] if isinstance(row.answer, str) else row.answer)) for row in rows]


def _matches(answers: Iterable[str]) -> Callable[[str], bool]:
    finals = frozenset(map(final_answer, answers))
    return lambda text: final_answer(text) in finals


async def _reply(pipeline: Pipeline, request: Request) -> Reply:
    reading, text, reason = Reading(), [], None
    async with aclosing(pipeline.run(request)) as events:
        async for event in events:
            if isinstance(event, Delta):
                reading.see(event.text, event.logprobs)
                text.append(event.text)
            elif isinstance(event, Finish):
                if event.failure is not None:
                    raise from_failure(event.failure)
                reason = event.reason
    return Reply("".join(text), reading, reason == "stop")


def _digest(settings: Settings, model: str) -> str:
    """SHA-256 of the weights that `model` loads from one file, "" where there is no such file."""
    loaded = next((served.model for served in settings.models if served.name == model), None)
    if loaded is None:
        return ""
    try:
        return weights_digest(locate(loaded, progress=False).path / "model.safetensors")
    except (LoadError, OSError):
        return ""


def weights_digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb") as weights:
        while part := weights.read(TOGETHER):
            digest.update(part)
    return digest.hexdigest()
