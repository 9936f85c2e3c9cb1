"""Anthropic's Messages as bytes: every field, every kind of block, the order of the events, and errors in their own shape."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from penstock.core.errors import EngineDied, Overloaded
from penstock.core.types import Delta, Message, Tool, ToolCall, ToolCallPiece, ToolChoice
from penstock.gateway.wire.fields import Neutral
from penstock.gateway.wire.messages_fields import COUNT_NEUTRAL, MESSAGES_NEUTRAL
from penstock.upstream.fake import Script
from tests.wire.played import CALLS, THOUGHT, USAGE, WEATHER, Played

PATH = "/v1/messages"
COUNT = f"{PATH}/count_tokens"
USER: dict[str, Any] = {"role": "user", "content": "hello"}
ASK: dict[str, Any] = {"model": "fake", "max_tokens": 64, "messages": [USER]}
TOOLS = [
    {
        "name": "weather",
        "description": WEATHER["description"],
        "input_schema": WEATHER["parameters"],
        "cache_control": {"type": "ephemeral"},
    }
]
USE = {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Rome"}}
RESULT: dict[str, Any] = {"type": "tool_result", "tool_use_id": "a", "content": "sunny"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
NEUTRAL = [(path, name, field) for path, table in ((PATH, MESSAGES_NEUTRAL), (COUNT, COUNT_NEUTRAL)) for name, field in table.items()]


async def post(gateway: Any, body: dict[str, Any], path: str = PATH, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url="http://gateway") as http:
        return await http.post(path, json=body, headers=headers)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """Each event's data; its name is that of its type."""
    found = []
    for block in answer.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if "event" in lines:
            found.append(json.loads(lines["data"]))
            assert found[-1]["type"] == lines["event"]
    return found


def error(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], set(body["error"])) == ("error", {"type", "message"})
    assert body["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    return answer.status_code, body["error"]["type"], body["error"]["message"]


@pytest.mark.parametrize(
    ("field", "value", "name", "expected"),
    [
        ("temperature", 0.5, "temperature", 0.5),
        ("top_p", 0.9, "top_p", 0.9),
        ("top_k", 7, "top_k", 7),
        ("top_k", 0, "top_k", None),
        ("max_tokens", 9, "max_tokens", 9),
        ("stop_sequences", ["x", "y"], "stop", ("x", "y")),
        ("stop_sequences", [], "stop", ()),
    ],
)
async def test_sampling_reaches_the_model(gateway: Any, field: str, value: object, name: str, expected: object) -> None:
    assert (await post(gateway, ASK | {field: value})).status_code == 200
    assert getattr(gateway.upstream.requests[0].sampling, name) == expected


@pytest.mark.parametrize(
    ("field", "value", "name", "expected"),
    [
        ("tools", TOOLS, "tools", (Tool(**WEATHER),)),
        ("tools", [], "tools", ()),
        ("tool_choice", {"type": "auto"}, "tool_choice", ToolChoice()),
        ("tool_choice", {"type": "any"}, "tool_choice", ToolChoice(mode="required")),
        ("tool_choice", {"type": "none"}, "tool_choice", ToolChoice(mode="none")),
        ("tool_choice", {"type": "tool", "name": "weather"}, "tool_choice", ToolChoice(mode="required", name="weather")),
        ("tool_choice", {"type": "auto", "disable_parallel_tool_use": True}, "parallel_tool_calls", False),
        ("output_config", {"effort": "low"}, "reasoning_effort", "low"),
        ("output_config", {"effort": "max"}, "reasoning_effort", "max"),
        (
            "output_config",
            {"format": {"type": "json_schema", "schema": SCHEMA}},
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
        ),
        ("stream", True, "streams", True),
        ("metadata", {"user_id": "me"}, "tenant", ""),
        ("cache_control", {"type": "ephemeral", "ttl": "1h"}, "tenant", ""),
    ],
)
async def test_the_rest_reaches_the_model(gateway: Any, field: str, value: object, name: str, expected: object) -> None:
    answer = await post(gateway, ASK | {"tools": TOOLS} | {field: value})
    assert answer.status_code == 200, answer.text
    assert getattr(gateway.upstream.requests[0], name) == expected


async def test_a_conversation(gateway: Any) -> None:
    messages = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look.", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "Rome?"}],
        },
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "text", "text": "I look."}, USE],
        },
        {"role": "user", "content": [RESULT, {"type": "text", "text": "And now?"}]},
        {"role": "user", "content": "Tell me."},
    ]
    answer = await post(gateway, ASK | {"system": [{"type": "text", "text": "Be brief."}], "messages": messages, "tools": TOOLS})
    assert answer.status_code == 200, answer.text
    assert gateway.upstream.requests[0].messages == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Look.\nRome?"),
        Message(
            role="assistant",
            content="I look.",
            reasoning="Hm.",
            tool_calls=(ToolCall(id="a", name="weather", arguments='{"city":"Rome"}'),),
        ),
        Message(role="tool", content="sunny", tool_call_id="a"),
        Message(role="user", content="And now?\nTell me."),
    )


async def test_a_failed_tool_is_told_as_text(gateway: Any) -> None:
    turns = [USER, {"role": "assistant", "content": [USE]}, {"role": "user", "content": [RESULT | {"is_error": True}]}]
    await post(gateway, ASK | {"messages": turns, "tools": TOOLS})
    assert gateway.upstream.requests[0].messages[-1] == Message(role="tool", content="Error: sunny", tool_call_id="a")


async def test_a_last_turn_of_the_assistant_is_continued(gateway: Any) -> None:
    await post(gateway, ASK | {"messages": [USER, {"role": "assistant", "content": "The answer is"}]})
    (request,) = gateway.upstream.requests
    assert (request.continue_final_message, request.add_generation_prompt) == (True, False)
    await post(gateway, ASK)
    assert (gateway.upstream.requests[1].continue_final_message, gateway.upstream.requests[1].add_generation_prompt) == (False, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": None}, "max_tokens is missing"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"messages": []}, "messages is missing or empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role is 'tool'"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content is empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].type is 'image'"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type is missing"),
        ({"messages": [{"role": "user", "content": [USE]}]}, "only an assistant calls tools"),
        ({"messages": [USER, {"role": "assistant", "content": [RESULT]}]}, "it goes in the user's turn"),
        ({"messages": [USER, {"role": "assistant", "content": [USE]}]}, "nothing answers"),
        ({"messages": [USER, {"role": "assistant", "content": [USE | {"input": []}]}]}, "not an object"),
        ({"messages": [USER | {"name": "me"}]}, "unknown field 'messages[0].name'"),
        ({"messages": [USER | {"content": [{"type": "thinking", "thinking": "Hm."}]}]}, "only an assistant thinks"),
        ({"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]}, "nothing but redacted"),
        ({"system": [USE]}, "system has a block that is no text"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type is 'bash_20250124'"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name is 'a b'"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "two tools are called 'weather'"),
        ({"tool_choice": {"type": "any"}}, "there are no tools"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name is missing"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "not among the tools"),
        ({"tool_choice": {"type": "auto", "name": "x"}}, "only with the type 'tool'"),
        ({"output_config": {"effort": "huge"}}, "output_config: Invalid enum value 'huge'"),
        ({"stop_sequences": [""]}, "stop_sequences has a text of 0 characters"),
        ({"temperature": 3}, "temperature is 3"),
        ({"max_token": 3}, "did you mean 'max_tokens'?"),
        ({"cache_control": {"type": "for ever"}}, "cache_control.type"),
    ],
)
async def test_refusals(gateway: Any, change: dict[str, Any], said: str) -> None:
    status, kind, message = error(await post(gateway, ASK | change))
    assert (status, kind) == (400, "invalid_request_error")
    assert said in message
    assert gateway.upstream.requests == []


@pytest.mark.parametrize(("path", "name", "field"), NEUTRAL)
async def test_what_is_not_honoured_is_refused_by_name(gateway: Any, path: str, name: str, field: Neutral) -> None:
    body = {key: value for key, value in ASK.items() if path == PATH or key != "max_tokens"}
    status, kind, message = error(await post(gateway, body | {name: {"certainly": "not neutral"}}, path))
    assert (status, kind) == (400, "invalid_request_error")
    assert message.startswith(f"{name} is not honoured: {field.why}")
    for value in (None, *field.values):
        assert (await post(gateway, body | {name: value}, path)).status_code == 200


async def test_a_whole_answer(make_gateway: Any) -> None:
    answer = (await post(make_gateway(upstream=Played(*THOUGHT)), ASK)).json()
    assert answer.pop("id").startswith("msg_")
    assert answer == {
        "type": "message",
        "role": "assistant",
        "model": "fake",
        "content": [{"type": "thinking", "thinking": "Let me see.", "signature": ""}, {"type": "text", "text": "Forty-two."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 7},
    }


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (Delta(text="x", finish_reason="stop"), ("end_turn", None)),
        (Delta(text="x", finish_reason="stop", stop_reason="END"), ("stop_sequence", "END")),
        (Delta(text="x", finish_reason="stop", stop_reason=7), ("end_turn", None)),
        (Delta(text="x", finish_reason="length"), ("max_tokens", None)),
        (Delta(text="x", finish_reason="content_filter"), ("refusal", None)),
        (Delta(tool_calls=CALLS[3].tool_calls, finish_reason="tool_calls"), ("tool_use", None)),
        (Delta(tool_calls=CALLS[3].tool_calls, finish_reason="stop"), ("tool_use", None)),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_why_it_ended(make_gateway: Any, last: Delta, expected: tuple[str, str | None], stream: bool) -> None:
    answer = await post(make_gateway(upstream=Played(last)), ASK | {"stream": stream})
    told = events(answer)[-2]["delta"] if stream else answer.json()
    assert (told["stop_reason"], told["stop_sequence"]) == expected


@pytest.mark.feature("Messages", "tools")
async def test_calls_in_a_whole_answer(make_gateway: Any) -> None:
    broken = Delta(tool_calls=(ToolCallPiece(index=2, id="c", name="weather", arguments='{"city": "Ro'),))
    none = Delta(tool_calls=(ToolCallPiece(index=3, id="d", name="time"),))
    answer = (await post(make_gateway(upstream=Played(*CALLS[:-1], broken, none, CALLS[-1])), ASK)).json()
    assert answer["content"] == [
        {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "call_b", "name": "time", "input": {}},
        {"type": "tool_use", "id": "c", "name": "weather", "input": {"INVALID_JSON": '{"city": "Ro'}},
        {"type": "tool_use", "id": "d", "name": "time", "input": {}},
    ]


@pytest.mark.feature("Messages", "streaming", "tools")
async def test_the_order_of_events(make_gateway: Any) -> None:
    answer = await post(make_gateway(upstream=Played(*THOUGHT[:-1], *CALLS, prompt=True)), ASK | {"stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    got = events(answer)
    block = ("content_block_start", "content_block_delta", "content_block_stop")
    two = (block[0], block[1], block[1], block[2])
    assert [event["type"] for event in got] == ["message_start", "ping", *two, *two, *two, *block, "message_delta", "message_stop"]
    starts = [event["content_block"] for event in got if event["type"] == "content_block_start"]
    assert starts == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "call_a", "name": "weather", "input": {}},
        {"type": "tool_use", "id": "call_b", "name": "time", "input": {}},
    ]
    assert [event["index"] for event in got if "index" in event] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 3
    deltas = [event["delta"] for event in got if event["type"] == "content_block_delta"]
    assert deltas[1:] == [
        {"type": "thinking_delta", "thinking": "see."},
        {"type": "text_delta", "text": "For"},
        {"type": "text_delta", "text": "ty-two"},
        {"type": "input_json_delta", "partial_json": '{"city":'},
        {"type": "input_json_delta", "partial_json": ' "Rome"}'},
        {"type": "input_json_delta", "partial_json": "{}"},
    ]
    assert got[0]["message"]["usage"]["input_tokens"] == 3
    assert got[-2]["usage"] == {
        "input_tokens": USAGE.prompt_tokens - USAGE.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": USAGE.cached_tokens,
        "output_tokens": USAGE.completion_tokens,
    }


@pytest.mark.parametrize("deltas", [(), (Delta(finish_reason="stop"),)])
async def test_an_answer_without_content(make_gateway: Any, deltas: tuple[Delta, ...]) -> None:
    gateway = make_gateway(upstream=Played(*deltas))
    assert (await post(gateway, ASK)).json()["content"] == []
    got = events(await post(gateway, ASK | {"stream": True}))
    assert [event["type"] for event in got] == ["message_start", "ping", "message_delta", "message_stop"]


async def test_an_interleaved_call_breaks_the_stream(make_gateway: Any) -> None:
    answer = await post(make_gateway(upstream=Played(*CALLS[:-1], CALLS[1])), ASK | {"stream": True})
    last = events(answer)[-1]
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_before_the_first_token(make_gateway: Any, stream: bool) -> None:
    gateway = make_gateway(Script(error=Overloaded("the queue is full", retry_after_s=3)))
    answer = await post(gateway, ASK | {"stream": stream})
    assert error(answer) == (429, "rate_limit_error", "the queue is full")
    assert answer.headers["retry-after"] == "3"


async def test_an_error_within_a_stream(make_gateway: Any) -> None:
    answer = await post(make_gateway(Script(error=EngineDied("the engine died"), error_after=2)), ASK | {"stream": True})
    last = events(answer)[-1]
    assert last["error"] == {"type": "overloaded_error", "message": "the engine died"}
    assert last["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", PATH, (405, "invalid_request_error")), ("GET", f"{PATH}/batches", (404, "not_found_error"))],
)
async def test_what_is_not_there(http: httpx.AsyncClient, method: str, path: str, expected: tuple[int, str]) -> None:
    assert error(await http.request(method, path))[:2] == expected


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.feature("Messages", "explain", "streaming")
async def test_an_answer_explains_itself(gateway: Any, stream: bool) -> None:
    answer = await post(gateway, ASK | {"stream": stream, "penstock": {"explain": True}})
    told = events(answer)[-2] if stream else answer.json()
    assert told["penstock"]["route"] == "fake/fake"
    assert told["penstock"]["request_id"] == answer.headers["request-id"]
    assert answer.headers["x-penstock-cost"] == ("pending" if stream else "unknown")
    assert (": x-penstock-cost unknown\n\n" in answer.text) is stream


async def test_counting_tokens(gateway: Any) -> None:
    body = {"model": "fake", "system": "Be.", "messages": [USER], "tools": TOOLS, "tool_choice": {"type": "auto"}}
    answer = await post(gateway, body, COUNT)
    assert (answer.status_code, answer.json()) == (200, {"input_tokens": len("system: Be.\nuser: hello\n")})
    assert (await post(gateway, ASK)).json()["usage"]["input_tokens"] == len("user: hello\n")


async def test_counting_tokens_refuses_in_its_own_shape(gateway: Any) -> None:
    assert error(await post(gateway, ASK, COUNT)) == (400, "invalid_request_error", "unknown field 'max_tokens'")
    assert error(await post(gateway, {"model": "fakee", "messages": [USER]}, COUNT))[:2] == (404, "not_found_error")
