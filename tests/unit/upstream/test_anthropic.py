"""The upstream for Anthropic's API, against a real HTTP server that speaks it."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from fakes.anthropic import MODEL, anthropic_fake, prompt_tokens
from fakes.asking import ask, called, chat, finish_of, replaced, text_of, until, upstream_at
from fakes.server import Answer, Called
from serving import tab

from penstock.core import errors
from penstock.core.types import Delta, Message, Request, Route, Sampling, Tool, ToolCall, ToolChoice
from penstock.upstream import Counting
from penstock.upstream.anthropic_answer import AnthropicReader

ROUTE = Route(upstream="there", model=MODEL)
END = Answer(finish="end_turn")


async def test_whole_and_streamed_answers_are_the_same() -> None:
    answer = Answer(finish="end_turn", thoughts=("Let", " me"), cached=2)
    async with anthropic_fake(answer) as fake, upstream_at(fake.url, kind="anthropic", api_key="sk-a") as upstream:
        streamed, whole = [await ask(upstream, chat(streams=streams)) for streams in (True, False)]
        assert fake.asked[-1].headers["x-api-key"] == "sk-a"
        assert fake.asked[-1].headers["anthropic-version"] == "2023-06-01"
        assert fake.body == {"model": MODEL, "max_tokens": 64_000, "messages": [{"role": "user", "content": "Say something short"}]}
        usage = finish_of(streamed).usage
        assert (usage.prompt_tokens, usage.cached_tokens) == (prompt_tokens(fake.body), 2)
    assert usage.completion_tokens == fake.generated == 6
    assert usage.reasoning_tokens == 2
    assert not usage.estimated
    assert finish_of(streamed) == finish_of(whole)
    for events in (streamed, whole):
        assert text_of(events) == "Hello, world."
        assert "".join(event.reasoning for event in events if isinstance(event, Delta)) == "Let me"


async def test_tools_go_there_and_calls_come_back() -> None:
    calls = (Called("call_1", "weather", '{"city":"Rome"}'), Called("call_2", "time", "{}"))
    request = chat(
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="Weather?"),
            Message(role="assistant", content="", tool_calls=tuple(ToolCall(id=c, name="weather", arguments='{"a":1}') for c in "xy")),
            Message(role="tool", content="rain", tool_call_id="x"),
            Message(role="tool", content="sun", tool_call_id="y"),
            Message(role="user", content="So?"),
        ),
        tools=(Tool(name="weather", description="tells it", parameters={"type": "object"}),),
        tool_choice=ToolChoice(mode="required"),
        parallel_tool_calls=False,
    )
    answer = Answer(tokens=("Well",), calls=calls, finish="tool_use")
    async with anthropic_fake(answer) as fake, upstream_at(fake.url, kind="anthropic") as upstream:
        for streams in (True, False):
            events = await ask(upstream, replaced(request, streams=streams))
            assert called(events) == {0: ("call_1", "weather", '{"city":"Rome"}'), 1: ("call_2", "time", "{}")}
            assert finish_of(events).reason == "tool_calls"
        body = fake.body
    assert body["system"] == "Be brief."
    assert body["tools"] == [{"name": "weather", "input_schema": {"type": "object"}, "description": "tells it"}]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    asked, used, answered = body["messages"]
    assert asked == {"role": "user", "content": "Weather?"}
    assert used["content"] == [{"type": "tool_use", "id": c, "name": "weather", "input": {"a": 1}} for c in "xy"]
    assert [block["type"] for block in answered["content"]] == ["tool_result", "tool_result", "text"]


async def test_a_client_that_leaves_pays_for_what_came() -> None:
    async with anthropic_fake(Answer(hang_after=3)) as fake, upstream_at(fake.url, kind="anthropic") as upstream:
        noted, got = tab(), ""
        async with aclosing(upstream.stream(chat(), ROUTE, noted)) as events:
            async for event in events:
                got += event.text
                if got == "Hello, world":
                    break
        await until(lambda: fake.open == 0)
        assert noted.usage is not None and noted.usage.estimated
        assert noted.usage.completion_tokens == fake.generated == 3
        assert noted.usage.prompt_tokens == prompt_tokens(fake.body)


async def test_an_answer_cut_by_the_server_is_a_failure_that_costs_what_came() -> None:
    async with anthropic_fake(Answer(cut_after=2)) as fake, upstream_at(fake.url, kind="anthropic") as upstream:
        noted = tab()
        with pytest.raises(errors.UpstreamFailed, match="broke off its answer"):
            await ask(upstream, chat(), noted)
        assert noted.usage is not None
        assert noted.usage.completion_tokens == fake.generated == 2


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid_request_error", errors.InvalidRequest),
        (401, "authentication_error", errors.UpstreamFailed),
        (404, "not_found_error", errors.ModelNotFound),
        (429, "rate_limit_error", errors.Overloaded),
        (500, "api_error", errors.UpstreamFailed),
        (529, "overloaded_error", errors.Overloaded),
    ],
)
async def test_a_refusal_becomes_an_error_of_ours(status: int, kind: str, expected: type[Exception]) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "model: claude-x"}}
    async with anthropic_fake(Answer(status=status, body=body)) as fake, upstream_at(fake.url, kind="anthropic") as upstream:
        with pytest.raises(errors.PenstockError) as caught:
            await ask(upstream, chat())
    assert type(caught.value) is expected


def test_an_error_within_a_stream_is_an_error() -> None:
    with pytest.raises(errors.Overloaded):
        AnthropicReader("there", chat()).read([b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'])


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (Request(id="r", model="", prompt="x"), "prompt"),
        (chat(n=2), "n"),
        (chat(sampling=Sampling(logprobs=0)), "logprobs"),
        (chat(sampling=Sampling(seed=1)), "seed"),
        (chat(sampling=Sampling(temperature=1.5)), "temperature"),
        (chat(response_format={"type": "json_object"}), "response_format"),
        (chat(chat_template_kwargs={"a": 1}), "chat_template_kwargs"),
    ],
)
async def test_what_the_api_has_no_word_for_is_refused_by_name(request_: Request, param: str) -> None:
    async with anthropic_fake(END) as fake, upstream_at(fake.url, kind="anthropic") as upstream:
        with pytest.raises(errors.Unsupported) as caught:
            await ask(upstream, request_)
        assert caught.value.param == param
        assert fake.asked == []


async def test_settings_reach_the_server() -> None:
    sampling = Sampling(max_tokens=2, temperature=0, top_p=0.5, top_k=4, stop=("x",))
    schema = {"type": "object"}
    request = chat(
        sampling=sampling, reasoning_effort="minimal", response_format={"type": "json_schema", "json_schema": {"schema": schema}}
    )
    async with anthropic_fake(END) as fake, upstream_at(fake.url, kind="anthropic") as upstream:
        events = await ask(upstream, request)
        assert finish_of(events).reason == "length"
        sent = {name: value for name, value in fake.body.items() if name not in ("model", "messages", "stream")}
    assert sent == {
        "max_tokens": 2, "temperature": 0, "top_p": 0.5, "top_k": 4, "stop_sequences": ["x"],
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}},
    }  # fmt: skip


async def test_tokens_are_counted_as_the_server_counts_them() -> None:
    async with anthropic_fake(END) as fake, upstream_at(fake.url, kind="anthropic") as upstream:
        assert isinstance(upstream, Counting)
        counted = await upstream.count_tokens(chat("one two three"), ROUTE)
        assert counted == prompt_tokens(fake.body)
        assert set(fake.body) == {"model", "messages"}
