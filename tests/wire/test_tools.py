"""Tools, formats and reasoning in chats: what reaches the model, and what comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from openai import OpenAI

from penstock.core.types import Delta, Message, Tool, ToolCall, ToolCallPiece, ToolChoice
from tests.wire.played import CALLS, THOUGHT, USAGE, WEATHER, Played

CHAT = "/v1/chat/completions"
TOOLS = [{"type": "function", "function": WEATHER | {"strict": True}}, {"type": "function", "function": {"name": "time"}}]
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object"}, "strict": True}}


@asynccontextmanager
async def client_of(gateway: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url="http://gateway") as http:
        yield http


@pytest.mark.parametrize(
    ("field", "value", "name", "expected"),
    [
        ("tools", TOOLS, "tools", (Tool(**WEATHER, strict=True), Tool(name="time"))),
        ("tools", [], "tools", ()),
        ("tool_choice", "none", "tool_choice", ToolChoice(mode="none")),
        ("tool_choice", "required", "tool_choice", ToolChoice(mode="required")),
        ("tool_choice", {"type": "function", "function": {"name": "time"}}, "tool_choice", ToolChoice(mode="required", name="time")),
        ("parallel_tool_calls", False, "parallel_tool_calls", False),
        ("response_format", {"type": "text"}, "response_format", None),
        ("response_format", {"type": "json_object"}, "response_format", {"type": "json_object"}),
        ("response_format", SCHEMA, "response_format", SCHEMA),
        ("reasoning_effort", "high", "reasoning_effort", "high"),
    ],
)
async def test_what_reaches_the_model(
    http: httpx.AsyncClient, gateway: Any, field: str, value: object, name: str, expected: object
) -> None:
    answer = await http.post(CHAT, json=ASK | {"tools": TOOLS} | {field: value})
    assert answer.status_code == 200, answer.text
    assert getattr(gateway.upstream.requests[0], name) == expected


async def test_a_choice_without_tools_is_none(http: httpx.AsyncClient, gateway: Any) -> None:
    await http.post(CHAT, json=ASK | {"tool_choice": "auto", "parallel_tool_calls": True})
    assert gateway.upstream.requests[0].tool_choice is None


async def test_a_conversation_with_calls_answers_and_reasoning(http: httpx.AsyncClient, gateway: Any) -> None:
    called = {"id": "a", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    messages = [
        *ASK["messages"],
        {"role": "assistant", "content": None, "tool_calls": [called], "reasoning_content": "I need the time."},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "noon"}]},
    ]
    assert (await http.post(CHAT, json={"messages": messages})).status_code == 200
    assert gateway.upstream.requests[0].messages == (
        Message(role="user", content="hello"),
        Message(role="assistant", content="", tool_calls=(ToolCall(id="a", name="time", arguments="{}"),), reasoning="I need the time."),
        Message(role="tool", content="noon", tool_call_id="a"),
    )


async def test_whole_calls(make_gateway: Callable[..., Any]) -> None:
    async with client_of(make_gateway(upstream=Played(*CALLS, reason="tool_calls"))) as http:
        body = (await http.post(CHAT, json=ASK)).json()
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
        ],
    }
    assert body["usage"]["total_tokens"] == USAGE.total_tokens


@pytest.mark.feature("tools", "streaming")
async def test_streamed_calls_have_their_name_once(make_gateway: Callable[..., Any]) -> None:
    async with client_of(make_gateway(upstream=Played(*CALLS, reason="tool_calls"))) as http:
        answer = await http.post(CHAT, json=ASK | {"stream": True})
    data = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: {")]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in data]
    assert [delta.get("tool_calls") for delta in deltas] == [
        None,
        [{"index": 0, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"city":'}}],
        [{"index": 0, "function": {"arguments": ' "Rome"}'}}],
        [{"index": 1, "id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}}],
        None,
    ]


REPEATED = tuple(Delta(tool_calls=(ToolCallPiece(index=0, id="a", name="f", arguments=part),)) for part in ("{", "}"))
NAMELESS = tuple(Delta(tool_calls=(ToolCallPiece(index=0, name=name, arguments=part),)) for name, part in (("f", "{"), (None, "}")))


@pytest.mark.parametrize(("deltas", "call_id"), [(REPEATED, "a"), (NAMELESS, "call_0")])
def test_each_call_has_one_id_and_one_name_whatever_the_server_says(make_server: Callable[..., Any], deltas: Any, call_id: str) -> None:
    ask: Any = {"model": "fake", "messages": ASK["messages"], "tools": TOOLS[1:]}
    server = make_server(upstream=Played(*deltas, Delta(finish_reason="tool_calls"), reason="tool_calls"))
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        whole = client.chat.completions.create(**ask).choices[0].message.tool_calls
        with client.chat.completions.stream(**ask) as stream:
            streamed = stream.get_final_completion().choices[0].message.tool_calls
    for calls in (whole, streamed):
        assert calls is not None
        assert [(call.id, call.type, call.function.name, call.function.arguments) for call in calls] == [(call_id, "function", "f", "{}")]


async def test_calls_and_words_together(make_gateway: Callable[..., Any]) -> None:
    deltas = (
        Delta(text="Wait."),
        Delta(tool_calls=(ToolCallPiece(index=0, id="a", name="f", arguments="{}"),), finish_reason="tool_calls"),
    )
    async with client_of(make_gateway(upstream=Played(*deltas, reason="tool_calls"))) as http:
        message = (await http.post(CHAT, json=ASK)).json()["choices"][0]["message"]
    assert (message["content"], message["tool_calls"][0]["id"]) == ("Wait.", "a")


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_is_told_apart(make_gateway: Callable[..., Any], stream: bool) -> None:
    async with client_of(make_gateway(upstream=Played(*THOUGHT))) as http:
        answer = await http.post(CHAT, json=ASK | {"stream": stream})
    if stream:
        data = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n") if line.startswith("data: {")]
        parts = [event["choices"][0]["delta"] for event in data]
    else:
        parts = [answer.json()["choices"][0]["message"]]
    assert "".join(part.get("reasoning_content", "") for part in parts) == "Let me see."
    assert "".join(part.get("content", "") for part in parts) == "Forty-two."


async def test_usage_as_it_goes_counts_pieces_where_no_tokens_are_told(make_gateway: Callable[..., Any]) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with client_of(make_gateway(upstream=Played(*THOUGHT))) as http:
        answer = await http.post(CHAT, json=ASK | {"stream": True, "stream_options": options})
    data = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n") if line.startswith("data: {")]
    assert [event["usage"]["completion_tokens"] for event in data] == [0, 1, 2, 3, 4, 5, USAGE.completion_tokens]


def test_the_official_client_puts_streamed_calls_together(make_server: Callable[..., Any]) -> None:
    server = make_server(upstream=Played(*CALLS, reason="tool_calls"))
    with (
        OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        client.chat.completions.stream(model="fake", messages=ASK["messages"], tools=TOOLS) as stream,  # type: ignore[arg-type]
    ):
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("call_a", "weather", '{"city": "Rome"}'),
        ("call_b", "time", "{}"),
    ]
