"""Several samples of one answer: which is given, what is refused, what it costs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import (
    Decision,
    Delta,
    Event,
    Finish,
    FinishReason,
    Judgement,
    Options,
    PromptInfo,
    Request,
    Route,
    Sampling,
    TokenLogprob,
    Tool,
    Usage,
)
from penstock.trace import Progress, Tab, Trace
from penstock.upstream import Dispatch, Vote
from penstock.upstream.fake import FakeUpstream, Script
from penstock.upstream.final import final_answer

HERE = Route(upstream="here", model="fake")


class Several(FakeUpstream):
    """Answers each choice with a text of its own, in two pieces, and with a log-probability for all of its tokens."""

    def __init__(self, *texts: tuple[str, float] | tuple[str, float, FinishReason]) -> None:
        super().__init__(Script())
        self.texts = [(text, logprob, *(reason or ["stop"])) for text, logprob, *reason in texts]

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        tab.usage = Usage(prompt_tokens=3, completion_tokens=sum(len(text) for text, *_ in self.texts))
        yield PromptInfo(token_ids=(1, 2, 3))
        for part in (0, 1):
            for index, (text, logprob, reason) in enumerate(self.texts):
                piece = text[:1] if part == 0 else text[1:]
                scores = tuple(TokenLogprob(ord(char), char, logprob) for char in piece)
                known = None if request.sampling.logprobs is None else scores
                yield Delta(index=index, text=piece, logprobs=known, finish_reason=reason if part else None)  # type: ignore[arg-type]
        yield Finish(reason="stop", usage=tab.usage)


class Voted:
    """What came of a request for samples."""

    def __init__(self, upstream: FakeUpstream, **fields: object) -> None:
        self.upstream = upstream
        self.request = ask(**fields)
        self.events: list[Event] = []
        self.judgements: list[Judgement] = []

    async def run(self) -> Voted:
        progress = Progress(self.request, lambda: 0.0, Trace())
        vote = Vote(Dispatch({"here": self.upstream}))
        async with aclosing(vote.stream(self.request, Decision(route=HERE), progress)) as events:
            self.events = [event async for event in events]
        self.judgements = progress.judgements
        return self

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Delta))

    @property
    def finish(self) -> Finish:
        assert isinstance(self.events[-1], Finish)
        return self.events[-1]


def ask(**fields: object) -> Request:
    return Request(**{"id": "r", "model": "fake", "prompt": "Hi", "options": Options(samples=3), **fields})  # type: ignore[arg-type]


@pytest.mark.feature("voting", "n choices", "sampling")
async def test_the_final_answer_that_most_share_wins_and_all_are_paid_for() -> None:
    voted = await Voted(Several(("It is 7.", -0.01), ("So x = 42", -0.5), ("2 * 21 = 42.", -0.1))).run()
    assert voted.text == "2 * 21 = 42."
    assert [type(event) for event in voted.events] == [PromptInfo, Delta, Delta, Finish]
    assert {event.index for event in voted.events if isinstance(event, Delta)} == {0}
    assert all(event.logprobs is None for event in voted.events if isinstance(event, Delta))
    assert voted.finish.usage.completion_tokens == len("It is 7.So x = 422 * 21 = 42.")
    (judgement,) = voted.judgements
    assert (judgement.room, judgement.rule, judgement.action) == ("router", "vote", "2 of 3")
    assert judgement.score == pytest.approx(2 / 3)


async def test_it_is_one_call_for_as_many_choices() -> None:
    voted = await Voted(Several(("a", -1.0), ("a", -1.0), ("b", -1.0))).run()
    (request,) = voted.upstream.requests
    assert (request.n, request.sampling.logprobs) == (3, 0)


async def test_of_a_tie_the_most_confident_is_taken() -> None:
    voted = await Voted(Several(("x", -0.5), ("y", -0.1), ("z", -0.9))).run()
    assert voted.text == "y"
    assert voted.judgements[0].action == "1 of 3"


async def test_the_most_confident_can_be_asked_for() -> None:
    confident = Options(samples=3, choose="confidence")
    voted = await Voted(Several(("no", -0.5), ("no", -0.4), ("yes", -0.1)), options=confident).run()
    assert voted.text == "yes"
    assert voted.judgements[0].action == "most confident of 3"


async def test_what_was_cut_off_has_no_vote_unless_everything_was() -> None:
    voted = await Voted(Several(("7", -0.1, "length"), ("7", -0.1, "length"), ("8", -0.9))).run()
    assert (voted.text, voted.finish.reason) == ("8", "stop")
    cut = await Voted(Several(("7", -0.1, "length"), ("7", -0.1, "length"), ("8", -0.9, "length"))).run()
    assert (cut.text, cut.finish.reason) == ("7", "length")


@pytest.mark.feature("voting", "logprobs")
async def test_log_probabilities_that_were_asked_for_are_those_of_the_answer_given() -> None:
    voted = await Voted(Several(("a", -0.5), ("b", -0.1), ("b", -0.2)), sampling=Sampling(logprobs=0)).run()
    (delta, _) = [event for event in voted.events if isinstance(event, Delta)]
    assert delta.logprobs is not None and delta.logprobs[0].logprob == -0.1


@pytest.mark.parametrize(
    ("fields", "param", "hint"),
    [
        ({"n": 2}, "n", "leave out n"),
        ({"tools": (Tool(name="look"),)}, "tools", "leave out"),
        ({"sampling": Sampling(temperature=0.0)}, "temperature", "0.7"),
        ({"options": Options(samples=129)}, "penstock.samples", None),
    ],
)
async def test_what_does_not_go_together_is_refused_by_name(fields: dict[str, object], param: str, hint: str | None) -> None:
    upstream = FakeUpstream()
    with pytest.raises(InvalidRequest) as caught:
        await Voted(upstream, **fields).run()
    assert caught.value.param == param
    assert hint is None or hint in (caught.value.hint or "")
    assert not upstream.requests


async def test_a_model_without_log_probabilities_still_votes_and_is_asked_for_none_the_next_time() -> None:
    class Mute(Several):
        async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
            if request.sampling.logprobs is not None:
                raise Unsupported("served by something that has no logprobs", param="logprobs")
            async with aclosing(super().stream(request, route, tab)) as events:
                async for event in events:
                    yield event

    upstream = Mute(("a", -1.0), ("b", -1.0), ("b", -1.0))
    vote = Vote(Dispatch({"here": upstream}))
    for attempts in (2, 1):
        progress = Progress(ask(), lambda: 0.0, Trace())
        async with aclosing(vote.stream(ask(), Decision(route=HERE), progress)) as events:
            assert "".join([event.text async for event in events if isinstance(event, Delta)]) == "b"
        assert len(progress.tabs) == attempts
    with pytest.raises(Unsupported):
        await Voted(upstream, options=Options(samples=3, choose="confidence")).run()


async def test_the_worst_case_is_that_of_all_samples() -> None:
    vote = Vote(Dispatch({"here": FakeUpstream()}))
    one = await vote.most(replace(ask(), options=Options(), sampling=Sampling(max_tokens=10)), Decision(route=HERE))
    three = await vote.most(ask(sampling=Sampling(max_tokens=10)), Decision(route=HERE))
    assert (one.completion_tokens, three.completion_tokens) == (10, 30)


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("17 + 25 = 42.", "42"),
        ("First, 3 * 4 = 12.\nSo there are 12 apples.", "12"),
        ("She pays $1,234.50", "1234.5"),
        ("That makes\n#### 1,000", "1000"),
        (r"Thus $\boxed{\frac{1}{2}}$.", "frac 1 2"),
        (r"No: $\boxed{3}$, then $\boxed{4}$.", "4"),
        ("**Answer:** 8.0", "8"),
        ("Therefore, the final answer is (B).", "b"),
        ("The capital is Paris.", "capital is paris"),
        ("the capital is **Paris**", "capital is paris"),
        ("Yes, 18 is even.", "yes 18 is even"),
        ("No, 18 is odd.", "no 18 is odd"),
        ("1, 2, 3", "1 2 3"),
        ("1, 3, 2", "1 3 2"),
        ("He was born in 1879 in the town of Ulm.", "he was born in 1879 in town of ulm"),
        ("x = -5", "-5"),
        ("x = −5.0", "-5"),
        ("5", "5"),
        ("50%", "50"),
        ("", ""),
        ("It is -0.", "0"),
    ],
)
def test_final_answers_are_compared_by_what_they_say(text: str, final: str) -> None:
    assert final_answer(text) == final
