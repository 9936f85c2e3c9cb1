"""What a request may ask for, two at a time, through the pipeline with the built-in model: both must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

import pytest
from msgspec.structs import replace

from penstock.app.loop import LoopThread
from penstock.app.stack import Stack, build
from penstock.core.config import EngineSpec, ModelSettings, ServerSettings
from penstock.core.settings import Settings
from penstock.core.types import Delta, Finish, PromptInfo, Request, Sampling, TokenLogprob

MODEL = "penstock-mini"
PLAIN = Request(
    id="plain", model=MODEL, prompt="Once upon a time", sampling=Sampling(max_tokens=24, temperature=0.8, seed=1, ignore_eos=True)
)


@dataclass
class Choice:
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    num_deltas: int = 0
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class Answer:
    prompt: PromptInfo
    finish: Finish
    choices: dict[int, Choice] = field(default_factory=dict)

    def same(self, other: Answer) -> bool:
        return [c.token_ids for c in self.choices.values()] == [c.token_ids for c in other.choices.values()]


Ask = Callable[[Request], Answer]


@dataclass(frozen=True)
class Feature:
    """How a request asks for it, and what must be true of the answer."""

    request: dict[str, object]
    sampling: dict[str, object]
    check: Callable[[Ask, Request, Answer], object]


def each(condition: Callable[[Request, Choice], object]) -> Callable[[Ask, Request, Answer], object]:
    return lambda ask, request, answer: all(condition(request, choice) for choice in answer.choices.values())


COMMON = range(290, 400)  # some of them are in any answer


def without_penalties(request: Request) -> Request:
    return replace(request, sampling=replace(request.sampling, repetition_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0))


def stopped(request: Request, choice: Choice) -> bool:
    return "e" not in choice.text or request.sampling.min_tokens > 0  # what those spell is ordinary text


FEATURES = {
    "greedy": Feature({}, {"temperature": 0.0, "seed": None}, lambda ask, request, answer: ask(request).same(answer)),
    "sampling": Feature({}, {"top_k": 30, "top_p": 0.9, "min_p": 0.01}, lambda ask, request, answer: ask(request).same(answer)),
    "seed": Feature({}, {"seed": 77}, lambda ask, request, answer: ask(request).same(answer)),
    "penalties": Feature(
        {},
        {"repetition_penalty": 5.0, "frequency_penalty": 2.0, "presence_penalty": 2.0},
        lambda ask, request, answer: len(answer.choices[0].token_ids) < 5 or not ask(without_penalties(request)).same(answer),
    ),
    "logit bias": Feature(
        {}, {"logit_bias": dict.fromkeys(COMMON, -100.0)}, each(lambda _, choice: not set(COMMON) & set(choice.token_ids))
    ),
    "n choices": Feature({"n": 3}, {}, lambda ask, request, answer: sorted(answer.choices) == [0, 1, 2]),
    "logprobs": Feature(
        {},
        {"logprobs": 2},
        each(
            lambda _, choice: [s.token_id for s in choice.logprobs] == [*choice.token_ids] and all(len(s.top) == 2 for s in choice.logprobs)
        ),
    ),
    "prompt logprobs": Feature(
        {}, {"prompt_logprobs": 1}, lambda ask, request, answer: len(answer.prompt.logprobs or ()) == len(answer.prompt.token_ids) > 1
    ),
    "stop strings": Feature({}, {"stop": ("e",)}, each(stopped)),
    "stop token ids": Feature(
        {},
        {"stop_token_ids": tuple(COMMON)},
        each(lambda request, choice: not set(COMMON) & set(choice.token_ids[request.sampling.min_tokens : -1])),
    ),
    "min tokens": Feature({}, {"min_tokens": 9, "ignore_eos": False}, each(lambda _, choice: len(choice.token_ids) >= 9)),
    "bad words": Feature(
        {}, {"bad_words": ("the", "was")}, each(lambda _, choice: " the " not in choice.text and " was " not in choice.text)
    ),
    "allowed tokens": Feature(
        {}, {"allowed_token_ids": tuple(range(250, 700))}, each(lambda _, choice: all(250 <= token < 700 for token in choice.token_ids))
    ),
    "streaming": Feature({}, {}, each(lambda _, choice: choice.num_deltas > 1 or len(choice.token_ids) < 5)),
}
PAIRS = [
    pytest.param(a, b, marks=pytest.mark.feature(a, b), id=f"{a} and {b}")
    for a, b in combinations_with_replacement(FEATURES, 2)
    if (a, b) not in {("greedy", "sampling"), ("greedy", "seed")}
]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    loop = LoopThread()
    spec = EngineSpec(in_process=True, kv_bytes=2**24)
    settings = Settings(server=ServerSettings(), models=(ModelSettings(model=MODEL, name=MODEL, engine=spec),), sources={})
    stack = loop.run(build(settings, lambda name, loading: None))
    yield lambda request: loop.run(answered(stack, request))
    loop.run(stack.pipeline.close())
    loop.close()


async def answered(stack: Stack, request: Request) -> Answer:
    async with aclosing(stack.pipeline.run(request)) as events:
        got = [event async for event in events]
    assert isinstance(got[0], PromptInfo), got
    assert isinstance(got[-1], Finish)
    assert got[-1].failure is None
    answer = Answer(got[0], got[-1])
    for delta in got[1:-1]:
        assert isinstance(delta, Delta)
        choice = answer.choices.setdefault(delta.index, Choice())
        choice.text += delta.text
        choice.token_ids += delta.token_ids
        choice.logprobs += delta.logprobs or ()
        choice.num_deltas += 1
        choice.finish_reason, choice.stop_reason = delta.finish_reason, delta.stop_reason
    return answer


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_both_hold(ask: Ask, a: str, b: str) -> None:
    sampling = replace(PLAIN.sampling, **{**FEATURES[a].sampling, **FEATURES[b].sampling})
    request = replace(PLAIN, sampling=sampling, **{**FEATURES[a].request, **FEATURES[b].request})
    answer = ask(request)
    assert FEATURES[a].check(ask, request, answer), f"{a}: {answer}"
    assert FEATURES[b].check(ask, request, answer), f"{b}: {answer}"
    assert all(choice.finish_reason in ("stop", "length") for choice in answer.choices.values())


@pytest.mark.parametrize("name", [name for name in FEATURES if name not in {"greedy", "seed", "streaming"}])
def test_the_checks_notice_when_it_is_not_asked_for(ask: Ask, name: str) -> None:
    """Guards the test above: without the feature, some answer breaks its check (or a repeated one differs)."""
    most = 4 if name == "min tokens" else 24
    heats = (0.0, 1.0, 1.0, 1.0, 1.0)
    plain = [replace(PLAIN, sampling=replace(PLAIN.sampling, seed=None, temperature=heat, max_tokens=most)) for heat in heats]
    assert not all(FEATURES[name].check(ask, request, ask(request)) for request in plain)
