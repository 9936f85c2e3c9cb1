"""A cascade and a vote over real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from penstock.app.calibration import Question, read_questions, replies
from penstock.app.stack import Stack, build
from penstock.core.config import EmbeddingSettings, EngineSpec, LedgerSettings, ModelSettings, PageSettings, RouterSettings
from penstock.core.errors import UserError
from penstock.core.settings import Settings
from penstock.core.types import Delta, Event, Message, Options, Request, Sampling
from penstock.router.confidence import Calibration, Curve, Target
from penstock.trace import Ended

ASK = Request(id="r", model="auto", messages=(Message(role="user", content="What is 17 + 25?"),), sampling=Sampling(temperature=0.0))
TARGETS = (Target(quality=0.5, trust=0.001, kept=1.0), Target(quality=0.99, trust=0.9999, kept=0.0))
BY_TOTAL = Calibration(
    model="little", larger="big", intercept=0.0, curves={"total": Curve((-3.0, 7.0), (-4.0, 4.0))}, longest=200, targets=TARGETS
)
ENGINE = EngineSpec(in_process=True, threads=1, max_model_len=1024, max_num_seqs=8)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Stack]:
    """The built-in model twice: what matters here is who is asked."""
    (folder / "calibration.json").write_bytes(msgspec.json.encode(BY_TOTAL))
    tiers, file = {"simple": "little", "complex": "big"}, str(folder / "calibration.json")
    settings = Settings(
        models=tuple(ModelSettings(name=name, engine=ENGINE) for name in tiers.values()),
        router=RouterSettings(policy="cascade", tiers=tiers, calibration=file),  # type: ignore[arg-type]
        ledger=LedgerSettings(database="memory"),
        page=PageSettings(enabled=False),
        embeddings=EmbeddingSettings(enabled=False),
    )
    built = await build(settings, lambda *_: None)
    try:
        yield built
    finally:
        await built.close()


async def ask(stack: Stack, request: Request) -> tuple[Ended, list[Event]]:
    progress = stack.pipeline.begin(request)
    async with aclosing(stack.pipeline.run(request, progress)) as events:
        found = [event async for event in events]
    assert progress.ended is not None
    return progress.ended, found


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_a_real_engine_s_answer_is_weighed_kept_or_stopped(tmp_path: Path) -> None:
    async with served(tmp_path) as stack:
        kept, first = await ask(stack, replace(ASK, options=Options(quality=0.5)))
        gone, second = await ask(stack, replace(ASK, options=Options(quality=0.99)))
        voted, chosen = await ask(stack, replace(ASK, model="big", options=Options(samples=3), sampling=Sampling(temperature=0.7)))
        with pytest.raises(UserError, match="cannot be read"):
            read_questions(tmp_path / "nowhere")
        greedy = await replies(stack.pipeline, "big", [Question("What is 17 + 25?", str.isalpha)])
    assert "42" in text_of(first) == text_of(second) == greedy[0].text
    assert not any(event.logprobs for event in (*first, *second) if isinstance(event, Delta))
    assert [(attempt.route.model, attempt.purpose) for attempt in kept.attempts] == [("little", "answer")]
    assert [(attempt.route.model, attempt.purpose) for attempt in gone.attempts] == [("little", "cascade"), ("big", "answer")]
    assert gone.attempts[0].use is not None and gone.attempts[0].use.prefill_s > 0
    assert gone.attempts[0].usage.completion_tokens < kept.attempts[0].usage.completion_tokens
    assert greedy[0].whole and greedy[0].reading.whole
    (judgement,) = (said for said in voted.judgements if said.rule == "vote")
    assert judgement.action.endswith("of 3") and text_of(chosen)
    assert voted.finish.usage.completion_tokens > len([event for event in chosen if isinstance(event, Delta)])


def test_questions_are_graded_by_their_final_answer(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"prompt": "17 + 25", "answer": "42"}\n\n{"prompt": "Capital?", "answer": ["Paris", "It is Paris."]}\n')
    numbers, capital = read_questions(file)
    assert [numbers.right(text) for text in ("17 + 25 = 42.", "#### 42.0", "41", "")] == [True, True, False, False]
    assert [capital.right(text) for text in ("paris", "It is **Paris**", "Rome")] == [True, True, False]
    file.write_text('{"prompt": "17 + 25"}\n')
    with pytest.raises(UserError, match="not what can be calibrated on"):
        read_questions(file)
