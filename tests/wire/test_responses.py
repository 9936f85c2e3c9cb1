"""The Responses API: what reaches the model, what comes back, and the official client on both ends of a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from penstock.core.errors import EngineDied, Overloaded
from penstock.core.types import Delta, Message, Tool, ToolCall, ToolChoice
from penstock.gateway.wire.fields import RECORDED, RESPONSES_NEUTRAL, Neutral
from penstock.gateway.wire.responses import ResponsesFields
from penstock.upstream.fake import Script
from tests.wire.played import CALLS, THOUGHT, USAGE, WEATHER, Played
from tests.wire.test_fields import _properties

PATH = "/v1/responses"
ASK: dict[str, Any] = {"model": "fake", "input": "hello"}
TOOL = {"type": "function", **WEATHER, "strict": True}


@asynccontextmanager
async def client_of(gateway: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url="http://gateway") as http:
        yield http


@pytest.fixture
def connect(make_server: Callable[..., Any]) -> Callable[[Any], OpenAI]:
    """The official client of a server over an upstream."""

    def connected(upstream: Any) -> OpenAI:
        return OpenAI(base_url=f"{make_server(upstream=upstream).url}/v1", api_key="none", max_retries=0, timeout=20)

    return connected


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """Every event, its name checked against its type."""
    seen = []
    for part in answer.text.split("\n\n"):
        if part.startswith("event: "):
            name, data = part.split("\n")
            seen.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {seen[-1]['type']}"
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    return seen


# What reaches the model


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"tools": [TOOL]}, "tools", (Tool(**WEATHER, strict=True),)),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice", ToolChoice(mode="required")),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}},
            "tool_choice",
            ToolChoice(mode="required", name="weather"),
        ),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls", False),
        ({"reasoning": {"effort": "low"}}, "reasoning_effort", "low"),
        ({"text": {"format": {"type": "text"}}}, "response_format", None),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}},
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        ),
        ({"instructions": "Be brief."}, "messages", (Message(role="system", content="Be brief."), Message(role="user", content="hello"))),
    ],
)
async def test_fields_reach_the_model(http: httpx.AsyncClient, gateway: Any, given: dict[str, Any], name: str, expected: object) -> None:
    answer = await http.post(PATH, json=ASK | given)
    assert answer.status_code == 200, answer.text
    assert getattr(gateway.upstream.requests[0], name) == expected


async def test_sampling_reaches_the_model(http: httpx.AsyncClient, gateway: Any) -> None:
    asked = {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 9, "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    assert (await http.post(PATH, json=ASK | asked)).status_code == 200
    sampling = gateway.upstream.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.logprobs) == (0.5, 0.9, 9, 2)


async def test_a_conversation_of_items(http: httpx.AsyncClient, gateway: Any) -> None:
    items = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "Wait.", "annotations": []}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call", "call_id": "b", "name": "g", "arguments": "[]"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"role": "assistant", "content": "Done."},
    ]
    answer = await http.post(PATH, json={"input": items})
    assert answer.status_code == 200, answer.text
    calls = (ToolCall(id="a", name="f", arguments="{}"), ToolCall(id="b", name="g", arguments="[]"))
    assert gateway.upstream.requests[0].messages == (
        Message(role="developer", content="Be kind."),
        Message(role="user", content="one\ntwo"),
        Message(role="assistant", content="Wait.", tool_calls=calls, reasoning="Hm."),
        Message(role="tool", content="1", tool_call_id="a"),
        Message(role="tool", content="2", tool_call_id="b"),
        Message(role="assistant", content="", tool_calls=(ToolCall(id="c", name="f", arguments="{}"),)),
        Message(role="assistant", content="Done."),
    )


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": "x"}] * 4097}, "input"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "x", "colour": 1}]}, "input[0].colour"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0].image_url"),
        ({"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input[0]"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]}, "input[0].encrypted_content"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "tools[1]"),
        ({"tools": [TOOL], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
        ({"text": {"verbosity": "high"}}, "text.verbosity"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata"),
    ],
)
async def test_refusals(http: httpx.AsyncClient, given: dict[str, Any], param: str) -> None:
    answer = await http.post(PATH, json=ASK | given)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(param)


@pytest.mark.parametrize(("name", "field"), RESPONSES_NEUTRAL.items())
async def test_what_is_not_honoured_is_refused_by_name(http: httpx.AsyncClient, name: str, field: Neutral) -> None:
    error = (await http.post(PATH, json=ASK | {name: {"something": "asked"}})).json()["error"]
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    for value in (None, *field.values):
        assert (await http.post(PATH, json=ASK | {name: value})).status_code == 200


def test_every_field_of_openais_schema_has_its_place(shared_data: Path) -> None:
    text = (shared_data / "specs" / "openai_openapi" / "openapi.yaml").read_text()
    assert not _properties(text, "CreateResponse") - {*ResponsesFields.__struct_fields__, *RESPONSES_NEUTRAL, *RECORDED}


# What comes back


async def test_a_whole_response(make_gateway: Callable[..., Any]) -> None:
    asked = {"instructions": "Be brief.", "metadata": {"team": "blue"}, "temperature": 0, "max_output_tokens": 50, "tools": [TOOL]}
    async with client_of(make_gateway(upstream=Played(*THOUGHT))) as http:
        answer = await http.post(PATH, json=ASK | asked, headers={"x-request-id": "order-66"})
    body = answer.json()
    assert body["id"] == "resp_order-66"
    assert (body["object"], body["status"], body["model"], body["store"]) == ("response", "completed", "fake", False)
    assert {name: body[name] for name in ("instructions", "metadata", "temperature", "max_output_tokens")} == {
        name: asked[name] for name in ("instructions", "metadata", "temperature", "max_output_tokens")
    }
    assert body["tools"] == [TOOL]
    reasoning, message = body["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert message["content"] == [{"type": "output_text", "text": "Forty-two.", "annotations": [], "logprobs": []}]
    assert (message["role"], message["status"]) == ("assistant", "completed")
    assert body["usage"] == {
        "input_tokens": USAGE.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": USAGE.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": USAGE.total_tokens,
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_was_cut_is_incomplete(make_gateway: Callable[..., Any], stream: bool) -> None:
    async with client_of(make_gateway(Script(pieces=("abc", "def")))) as http:
        answer = await http.post(PATH, json=ASK | {"max_output_tokens": 4, "stream": stream})
    body = events(answer)[-1]["response"] if stream else answer.json()
    assert (body["status"], body["incomplete_details"], body["completed_at"]) == ("incomplete", {"reason": "max_output_tokens"}, None)
    assert (body["output"][0]["status"], body["output"][0]["content"][0]["text"]) == ("incomplete", "abcd")


async def test_logprobs(http: httpx.AsyncClient) -> None:
    asked = ASK | {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    whole = (await http.post(PATH, json=asked)).json()["output"][0]["content"][0]["logprobs"]
    assert [token["token"] for token in whole] == list("Hello, world.")
    assert whole[0]["top_logprobs"] == [{"token": "H", "logprob": -0.5, "bytes": [72]}]
    seen = events(await http.post(PATH, json=asked | {"stream": True}))
    assert [token for event in seen if event["type"] == "response.output_text.delta" for token in event["logprobs"]] == whole


@pytest.mark.feature("Responses", "streaming")
async def test_the_events_of_a_message(http: httpx.AsyncClient) -> None:
    answer = await http.post(PATH, json=ASK | {"stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    seen = events(answer)
    assert [event["type"].removeprefix("response.") for event in seen] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *["output_text.delta"] * 4,
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [event["delta"] for event in seen[4:8]] == ["Hello", ",", " world", "."]
    assert {event["item_id"] for event in seen[3:10]} == {seen[2]["item"]["id"]}
    assert (seen[0]["response"]["status"], seen[0]["response"]["output"], seen[0]["response"]["usage"]) == ("in_progress", [], None)
    assert seen[8]["text"] == seen[9]["part"]["text"] == seen[10]["item"]["content"][0]["text"] == "Hello, world."
    whole = (await http.post(PATH, json=ASK)).json()
    assert seen[-1]["response"]["output"][0]["content"] == whole["output"][0]["content"]
    assert seen[-1]["response"]["usage"] == whole["usage"]


@pytest.mark.parametrize(("deltas", "kinds"), [(THOUGHT, ["reasoning", "message"]), (CALLS, ["function_call", "function_call"])])
async def test_the_events_of_each_item_add_up_to_it(make_gateway: Callable[..., Any], deltas: tuple[Delta, ...], kinds: list[str]) -> None:
    async with client_of(make_gateway(upstream=Played(*deltas))) as http:
        seen = events(await http.post(PATH, json=ASK | {"stream": True}))
        whole = (await http.post(PATH, json=ASK)).json()["output"]
    streamed = seen[-1]["response"]["output"]
    assert [item["type"] for item in streamed] == kinds
    for index, item in enumerate(streamed):
        own = [event for event in seen if event.get("output_index") == index]
        assert (own[0]["type"], own[-1]["type"]) == ("response.output_item.added", "response.output_item.done")
        assert own[-1]["item"] == item
        text = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        assert text == (item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])
        assert {name: value for name, value in item.items() if name != "id"} == {
            name: value for name, value in whole[index].items() if name != "id"
        }


async def test_a_failure_within_the_stream_ends_it(make_gateway: Callable[..., Any]) -> None:
    async with client_of(make_gateway(Script(error=EngineDied("the engine died", hint="try again"), error_after=2))) as http:
        seen = events(await http.post(PATH, json=ASK | {"stream": True}))
    assert seen[-1]["type"] == "response.failed"
    assert seen[-1]["response"]["error"] == {"code": "server_error", "message": "the engine died (try again)"}
    assert seen[-1]["response"]["output"][0]["content"][0]["text"] == "Hello,"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_stream_is_a_plain_error(make_gateway: Callable[..., Any], stream: bool) -> None:
    async with client_of(make_gateway(Script(error=Overloaded("the queue is full", retry_after_s=2)))) as http:
        answer = await http.post(PATH, json=ASK | {"stream": stream})
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["error"]["code"]) == (429, "2", "overloaded")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.feature("Responses", "explain", "streaming")
async def test_it_explains_itself(http: httpx.AsyncClient, stream: bool) -> None:
    answer = await http.post(PATH, json=ASK | {"stream": stream, "penstock": {"explain": True}})
    body = events(answer)[-1]["response"] if stream else answer.json()
    assert body["penstock"]["route"] == "fake/fake"


# The official client


def test_the_official_client(connect: Callable[[Any], OpenAI]) -> None:
    with connect(Played(*THOUGHT)) as client:
        answer = client.responses.create(model="fake", input="hello", instructions="Be brief.")
    assert answer.output_text == "Forty-two."
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 3


def test_the_official_client_streams(connect: Callable[[Any], OpenAI]) -> None:
    with connect(Played(*THOUGHT)) as client, client.responses.stream(model="fake", input="hello") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == "Forty-two."


@pytest.mark.feature("Responses", "tools")
def test_the_official_client_calls_tools(connect: Callable[[Any], OpenAI]) -> None:
    tools: Any = [TOOL, {"type": "function", "name": "time", "parameters": {"type": "object", "properties": {}}, "strict": False}]
    with connect(Played(*CALLS, reason="tool_calls")) as client:
        with client.responses.stream(model="fake", input="hello", tools=tools) as stream:
            streamed = [(item.call_id, item.arguments) for item in stream.get_final_response().output if item.type == "function_call"]
        answer = client.responses.create(model="fake", input="hello", tools=tools)
        calls = [item for item in answer.output if item.type == "function_call"]
        outputs: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "warm"} for call in calls]
        again = client.responses.create(model="fake", input=[{"role": "user", "content": "hello"}, *calls, *outputs], tools=tools)  # type: ignore[list-item]
    assert streamed == [(call.call_id, call.arguments) for call in calls] == [("call_a", '{"city": "Rome"}'), ("call_b", "{}")]
    assert again.status == "completed"


def test_the_official_client_parses(connect: Callable[[Any], OpenAI]) -> None:
    class City(BaseModel):
        name: str

    with connect(Played(Delta(text='{"name": "Rome"}', finish_reason="stop"))) as client:
        answer = client.responses.parse(model="fake", input="hello", text_format=City)
    assert answer.output_parsed == City(name="Rome")


def test_the_official_client_is_told_of_errors(connect: Callable[[Any], OpenAI]) -> None:
    with connect(Played()) as client, pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="fake", input="hello", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


async def test_the_official_client_without_waiting(make_server: Callable[..., Any]) -> None:
    async with AsyncOpenAI(base_url=f"{make_server().url}/v1", api_key="none", max_retries=0) as client:
        assert (await client.responses.create(model="fake", input="hello")).output_text == "Hello, world."
        stream = await client.responses.create(model="fake", input="hello", stream=True)
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
    assert text == "Hello, world."
