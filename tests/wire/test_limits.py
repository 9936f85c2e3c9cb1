"""What a client can make grow is bounded, and bodies that are no requests are refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from penstock.core.config import ServerSettings

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
MESSAGES = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f"}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


async def refusal(http: httpx.AsyncClient, path: str, body: object) -> dict[str, Any]:
    answer = await http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large(make_gateway: Callable[..., Any], chunked: bool) -> None:
    app = make_gateway(settings=ServerSettings(max_body_bytes=100)).app
    body = json.dumps({"prompt": "x" * 200}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50):
            yield body[start : start + 50]

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        answer = await http.post(TEXT, content=pieces() if chunked else body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert "100" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b'{"prompt": "x",}',
        b'{"prompt": NaN}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b"{}{}",
        b"\x00",
    ],
)
async def test_a_body_that_is_not_a_json_object(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post(TEXT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_only_json_so_that_no_web_page_can_ask(http: httpx.AsyncClient, kind: str) -> None:
    answer = await http.post(TEXT, content=b'{"prompt": "x"}', headers={"content-type": kind})
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("name", ["chat_template_kwargs", "metadata", "tools", "prompt", "surprise"])
@pytest.mark.parametrize("depth", [100, 10_000])
async def test_deep_nesting(http: httpx.AsyncClient, name: str, depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    answer = await http.post(CHAT, content=f'{{"messages": [], "{name}": {nested}}}'.encode(), headers={"content-type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("n", 129, "n is 129; the most is 128"),
        ("n", 0, "n is 0; the least is 1"),
        ("n", True, "n: expected int"),
        ("n", 1.0, "n: expected int"),
        ("temperature", -0.1, "the least is 0"),
        ("temperature", "hot", "temperature: expected float"),
        ("top_p", 0, "must be above 0"),
        ("top_p", 1.1, "the most is 1"),
        ("top_k", -2, "the least is -1"),
        ("seed", 2**63, "the most is"),
        ("stop", ["a"] * 33, "stop has 33 entries; the most is 32"),
        ("stop", [""], "0 characters"),
        ("stop", "x" * 257, "257 characters"),
        ("logit_bias", {"5": 101}, "from -100 to 100"),
        ("logit_bias", {"-1": 1}, "token id -1"),
        ("logit_bias", {"x": 1}, "expected int"),
        ("logit_bias", {str(token): 1 for token in range(4097)}, "4097 entries"),
        ("allowed_token_ids", [], "empty"),
        ("stop_token_ids", [2**31], "token id 2147483648"),
        ("max_tokens", 0, "the least is 1"),
        ("max_tokens", 10**30, "the most is"),
        ("min_tokens", -1, "the least is 0"),
        ("cache_salt", "", "0 characters"),
        ("request_id", "a b", "request_id"),
        ("user", "x" * 513, "513 characters"),
        ("metadata", {str(key): "v" for key in range(17)}, "17 entries"),
        ("stream_options", {"include_usage": True}, "only with stream"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_bounds_say_what_limit_and_value(http: httpx.AsyncClient, path: str, field: str, value: object, says: str) -> None:
    body = {"messages": MESSAGES} if path == CHAT else {"prompt": "hello"}
    error = await refusal(http, path, body | {field: value})
    assert says in error["message"]
    assert error["param"].startswith(field)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": MESSAGES, "max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"messages": MESSAGES, "max_tokens": 5, "min_tokens": 6}, "min_tokens"),
        ({"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": MESSAGES, "top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"messages": MESSAGES, "stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
        ({"messages": MESSAGES, "stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"messages": MESSAGES, "add_generation_prompt": True, "continue_final_message": True}, "continue_final_message"),
        ({"messages": []}, "messages"),
        ({}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "a"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages[0].colour"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].image_url",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "lang": "en"}]}]}, "messages[0].content[0].lang"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function"),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
        ({"messages": MESSAGES, "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools[0].function"),
        ({"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f", "colour": 1}}]}, "tools[0].function.colour"),
        ({"messages": MESSAGES, "tools": [TOOL, TOOL]}, "tools[1]"),
        ({"messages": MESSAGES, "tools": [TOOL] * 513}, "tools"),
        ({"messages": MESSAGES, "tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        ({"messages": MESSAGES, "tool_choice": "required"}, "tool_choice"),
        ({"messages": MESSAGES, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"messages": MESSAGES, "tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"messages": MESSAGES, "tools": [TOOL], "tool_choice": {"type": "x", "allowed_tools": {}}}, "tool_choice.allowed_tools"),
        ({"messages": MESSAGES, "response_format": {"type": "xml"}}, "response_format.type"),
        ({"messages": MESSAGES, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"messages": MESSAGES, "response_format": {"type": "grammar", "grammar": "x"}}, "response_format.grammar"),
        ({"messages": MESSAGES, "reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"messages": MESSAGES, "penstock": {"explian": True}}, "penstock.explian"),
        ({"messages": MESSAGES * 4097}, "messages"),
        ({"messages": MESSAGES, "chat_template": "{{ 1 }}"}, "chat_template"),
    ],
)
async def test_chat_refusals(http: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    assert (await refusal(http, CHAT, body))["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a", [1]]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": ["a"] * 257}, "prompt"),
        ({"prompt": ["a"] * 5, "n": 128}, "n"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
    ],
)
async def test_completion_refusals(http: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    assert (await refusal(http, TEXT, body))["param"] == param
