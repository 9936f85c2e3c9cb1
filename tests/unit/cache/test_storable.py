"""Which answers may be given to other words, and which never."""

from __future__ import annotations

import pytest

from penstock.cache.storable import why_unfit, why_unstorable
from penstock.core.types import Delta, Event, Failure, Finish, Message, Options, Request, Sampling, Tool, ToolCallPiece, ToolChoice

STEADY = Sampling(temperature=0.0)


def _request(text: str = "How do I boil an egg?", **fields: object) -> Request:
    given: dict[str, object] = {"id": "r", "model": "m", "messages": (Message(role="user", content=text),), "sampling": STEADY, **fields}
    return Request(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["How do I boil an egg?", "What is the capital of France?", "Why is the sky blue?", "How can I learn to swim?",
     "Where do penguins live?",
     "What is a haplogroup?", "How do you sort a list in Python?"],
)  # fmt: skip
def test_general_questions_may_be_stored(text: str) -> None:
    assert why_unstorable(_request(text), text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("What is the weather in Oslo?", "time"), ("What time is it?", "time"), ("What are the latest phones?", "time"),
        ("Who is the current president?", "time"), ("What is the price of gold?", "time"), ("Which films came out this week?", "time"),
        ("Summarise the news.", "time"), ("Is the bakery still open?", "time"), ("What happened yesterday?", "time"),
        ("How much tax do I owe on my salary?", "personal"), ("I am 34 and live in Ghent, what do I qualify for?", "personal"),
        ("What is our refund policy?", "personal"), ("Find a dentist near me", "personal"),
        ("Give me a random number", "differ"), ("Tell me another one", "differ"),
        ("Write a poem about rain", "differ"), ("Tell me a joke", "differ"),
        ("Why?", "points"), ("And what about Spain?", "points"), ("Translate it to French", "points"), ("Explain the above", "points"),
        ("  ", "no question"), ("why " * 600, "characters"),
    ],
)  # fmt: skip
def test_what_depends_on_the_hour_the_asker_or_chance_is_not(text: str, why: str) -> None:
    reason = why_unstorable(_request(text), text)
    assert reason is not None
    assert why in reason


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"sampling": Sampling(temperature=0.9)}, "temperature 0.9 is above 0.3"),
        ({"n": 2}, "several answers"),
        ({"options": Options(samples=5)}, "several answers"),
        ({"sampling": Sampling(temperature=0.0, logprobs=2)}, "log-probabilities"),
        ({"tools": (Tool(name="clock"),)}, "tools may be called"),
        ({"messages": (Message(role="user", content="Hi"), Message(role="assistant", content="Hello"))}, "not the user's"),
        ({"messages": None, "prompt": "Once"}, "not a chat"),
        ({"messages": (Message(role="tool", content="12", tool_call_id="c"), Message(role="user", content="So?"))}, "a tool was called"),
    ],
)  # fmt: skip
def test_requests_whose_answer_is_their_own_are_not(fields: dict[str, object], why: str) -> None:
    reason = why_unstorable(_request(**fields), "How do I boil an egg?")
    assert reason is not None
    assert why in reason


def test_tools_that_may_not_be_called_and_a_named_wish_for_the_cache_change_that() -> None:
    question = "How do I boil an egg?"
    assert why_unstorable(_request(tools=(Tool(name="clock"),), tool_choice=ToolChoice(mode="none")), question) is None
    assert why_unstorable(_request(sampling=Sampling(temperature=0.9), options=Options(cache="on")), question) is None


def _answer(text: str, **finish: object) -> list[Event]:
    return [Delta(text=text, finish_reason="stop"), Finish(**{"reason": "stop", **finish})]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["Boil it for seven minutes.", "I can help with that: boil it.", "Sorting is easy.", "Unlike tin, iron rusts."]
)
def test_whole_answers_fit(text: str) -> None:
    assert why_unfit(_answer(text)) is None


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (_answer("I'm sorry, but I can't help with that."), "refusal"),
        (_answer("I cannot provide that."), "refusal"),
        (_answer("As an AI language model, I have no opinion."), "refusal"),
        (_answer("Sure. Could you tell me which egg you mean?"), "asks back"),
        (_answer("  "), "empty"),
        (_answer("Boil it for", reason="length"), "did not end"),
        (_answer("Boil", reason="error", failure=Failure(status=502, code="upstream_error", message="gone")), "did not end"),
        ([Delta(tool_calls=(ToolCallPiece(index=0, id="c", name="clock"),)), Finish(reason="stop")], "tool"),
        ([], "did not end"),
    ],
)  # fmt: skip
def test_answers_that_are_cut_short_refused_or_none_do_not(events: list[Event], why: str) -> None:
    reason = why_unfit(events)
    assert reason is not None
    assert why in reason
