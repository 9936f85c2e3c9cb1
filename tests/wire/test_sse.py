"""The bytes of a stream, and what comes before them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from penstock.core.errors import EngineDied
from penstock.upstream.fake import Script

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "stream": True}


def events(body: bytes) -> list[dict[str, Any]]:
    """Every event of a stream but the closing [DONE], and without the comment before it that says the cost."""
    parts = body.decode().split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    assert parts[-3].startswith(": x-penstock-cost ")
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-3]]


async def test_role_then_text_then_the_end(http: httpx.AsyncClient) -> None:
    answer = await http.post(CHAT, json=ASK)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    choices = [event["choices"][0] for event in events(answer.content)]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [choice["delta"] for choice in choices[1:]] == [{"content": "Hello"}, {"content": ","}, {"content": " world"}, {"content": "."}]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, None, "stop"]
    assert "usage" not in events(answer.content)[0]


async def test_every_choice_opens_with_its_role_and_ends_once(http: httpx.AsyncClient) -> None:
    seen = [event["choices"][0] for event in events((await http.post(CHAT, json=ASK | {"n": 3})).content)]
    for index in range(3):
        own = [choice for choice in seen if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert [choice["finish_reason"] for choice in own] == [None] * 4 + ["stop"]


async def test_usage_comes_last_with_no_choices(http: httpx.AsyncClient) -> None:
    *others, last = events((await http.post(CHAT, json=ASK | {"stream_options": {"include_usage": True}})).content)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 13
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert all(event["usage"] is None for event in others)


async def test_continuous_usage_counts_as_it_goes(http: httpx.AsyncClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    seen = events((await http.post(CHAT, json=ASK | {"stream_options": options})).content)
    assert [event["usage"]["completion_tokens"] for event in seen] == [0, 5, 6, 12, 13, 13]
    assert {event["usage"]["prompt_tokens"] for event in seen} == {len("user: hello\n")}


async def test_token_ids_of_prompt_and_pieces(http: httpx.AsyncClient) -> None:
    opening, *pieces = events((await http.post(CHAT, json=ASK | {"return_token_ids": True})).content)
    assert opening["prompt_token_ids"] == [ord(char) for char in "user: hello\n"]
    assert [token for piece in pieces for token in piece["choices"][0]["token_ids"]] == [ord(char) for char in "Hello, world."]


async def test_echo_and_logprobs_in_a_stream_add_up_to_the_whole(http: httpx.AsyncClient) -> None:
    ask = {"prompt": "abc", "echo": True, "logprobs": 1, "n": 2}
    whole = (await http.post(TEXT, json=ask)).json()["choices"]
    seen = [event["choices"][0] for event in events((await http.post(TEXT, json=ask | {"stream": True})).content)]
    for index in range(2):
        own = [choice for choice in seen if choice["index"] == index]
        assert "".join(choice["text"] for choice in own) == whole[index]["text"] == "abcHello, world."
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [item for choice in own for item in choice["logprobs"][name]] == whole[index]["logprobs"][name]


async def test_offsets_count_the_names_that_are_shown(http: httpx.AsyncClient) -> None:
    ask = {"prompt": "a", "logprobs": 0, "return_tokens_as_token_ids": True}
    whole = (await http.post(TEXT, json=ask)).json()["choices"][0]["logprobs"]
    seen = [event["choices"][0]["logprobs"] for event in events((await http.post(TEXT, json=ask | {"stream": True})).content)]
    assert whole["tokens"][:2] == ["token_id:72", "token_id:101"]
    assert whole["text_offset"][:3] == [0, 11, 23]
    assert [offset for piece in seen for offset in piece["text_offset"]] == whole["text_offset"]


async def test_a_failure_before_the_first_piece_is_a_plain_error(make_gateway: Callable[..., Any]) -> None:
    app = make_gateway(Script(error=EngineDied("the engine died", retry_after_s=4.2))).app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        answer = await http.post(CHAT, json=ASK)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"] == {"message": "the engine died", "type": "server_error", "param": None, "code": "engine_died"}


async def test_a_failure_within_the_stream_ends_it(make_gateway: Callable[..., Any]) -> None:
    app = make_gateway(Script(error=EngineDied("the engine died"), error_after=2)).app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        answer = await http.post(CHAT, json=ASK)
    *_, last, end = answer.text.split("\n\n")
    assert answer.status_code == 200
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_died"
    assert end == ""
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
async def test_the_clients_own_request_id_is_kept(http: httpx.AsyncClient, stream: bool) -> None:
    answer = await http.post(CHAT, json=ASK | {"stream": stream}, headers={"x-request-id": "order-66"})
    assert answer.headers["x-request-id"] == "order-66"
    assert "chatcmpl-order-66" in answer.text


@pytest.mark.parametrize("given", ["", "a b", "é", "x" * 129, "<script>"])
async def test_a_strange_request_id_is_replaced(http: httpx.AsyncClient, given: str) -> None:
    answer = await http.get("/health", headers={"x-request-id": given.encode()})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 24


async def test_request_id_in_the_body_names_the_request(http: httpx.AsyncClient) -> None:
    assert (await http.post(CHAT, json=ASK | {"request_id": "mine"})).headers["x-request-id"] == "mine"
    answer = await http.post(CHAT, json=ASK | {"request_id": "mine"}, headers={"x-request-id": "header"})
    assert answer.headers["x-request-id"] == "header"


async def test_two_requests_of_the_same_id_stay_apart(gateway: Any, http: httpx.AsyncClient) -> None:
    for _ in range(2):
        await http.post(TEXT, json={"prompt": ["a", "b"]}, headers={"x-request-id": "same"})
    ids = [request.id for request in gateway.upstream.requests]
    assert len(set(ids)) == 4
    assert all(request_id.startswith("cmpl-same-") for request_id in ids)
