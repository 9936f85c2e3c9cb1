"""The official `openai` client against a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from penstock.core.errors import DeadlineExceeded, EngineDied, NotReady, Overloaded
from penstock.upstream.fake import Script

MakeClient = Callable[..., OpenAI]
ASK: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}


def test_chat(make_client: MakeClient) -> None:
    answer = make_client().chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Hello, world."
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens == len("Hello, world.")
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_three_choices(make_client: MakeClient) -> None:
    answer = make_client().chat.completions.create(**ASK, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"Hello, world."}


def test_streamed_chat(make_client: MakeClient) -> None:
    chunks = list(make_client().chat.completions.create(**ASK, n=3, stream=True, stream_options={"include_usage": True}))
    texts = ["", "", ""]
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["Hello, world."] * 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == ["stop"] * 3
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3 * len("Hello, world.")
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_accumulated_by_the_client(make_client: MakeClient) -> None:
    with make_client().chat.completions.stream(**ASK) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello, world."


def test_chat_logprobs(make_client: MakeClient) -> None:
    answer = make_client(Script(pieces=("é",))).chat.completions.create(**ASK, logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    (token,) = answer.choices[0].logprobs.content
    assert (token.token, token.logprob, token.bytes) == ("é", -0.5, [195, 169])
    assert [top.logprob for top in token.top_logprobs] == [-0.5, -1.5]


def test_completion(make_client: MakeClient) -> None:
    answer = make_client(Script(pieces=("abcdef",))).completions.create(model="fake", prompt="hello", max_tokens=3, logprobs=1)
    assert answer.choices[0].text == "abc"
    assert answer.choices[0].finish_reason == "length"
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.text_offset) == (["a", "b", "c"], [0, 1, 2])
    assert logprobs.top_logprobs == [{"a": -0.5}, {"b": -0.5}, {"c": -0.5}]


def test_streamed_completion(make_client: MakeClient) -> None:
    chunks = list(make_client().completions.create(model="fake", prompt="hello", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello, world."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]


def test_models(make_client: MakeClient) -> None:
    client = make_client()
    assert [model.id for model in client.models.list()] == ["fake", "auto"]
    assert client.models.retrieve("fake").owned_by == "penstock"


async def test_async_client(make_server: Callable[..., Any]) -> None:
    async with AsyncOpenAI(base_url=f"{make_server().url}/v1", api_key="none", max_retries=0) as client:
        assert (await client.chat.completions.create(**ASK)).choices[0].message.content == "Hello, world."
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hello, world."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "expected", "status"),
    [
        (Overloaded("the queue is full", retry_after_s=2.5), openai.RateLimitError, 429),
        (EngineDied("the engine died"), openai.InternalServerError, 503),
        (NotReady("the engine is restarting"), openai.InternalServerError, 503),
        (DeadlineExceeded("too late"), openai.InternalServerError, 504),
        (RuntimeError("secret path /home/me"), openai.InternalServerError, 500),
    ],
)
def test_errors_before_the_first_token(
    make_client: MakeClient, error: Exception, expected: type[openai.APIStatusError], status: int, stream: bool
) -> None:
    client = make_client(Script(error=error))
    with pytest.raises(expected) as caught:
        client.chat.completions.create(**ASK, stream=stream)
    assert caught.value.status_code == status
    assert "secret" not in caught.value.response.text
    assert caught.value.request_id
    assert caught.value.response.headers.get("retry-after") == {429: "3", 503: "1", 504: "1"}.get(status)


@pytest.mark.parametrize(
    ("ask", "expected", "param", "code"),
    [
        (ASK | {"model": "fakee"}, openai.NotFoundError, "model", "model_not_found"),
        (ASK | {"temperature": 3}, openai.BadRequestError, "temperature", "invalid_request_error"),
        (ASK | {"messages": []}, openai.BadRequestError, "messages", "invalid_request_error"),
        (ASK | {"response_format": {"type": "xml"}}, openai.BadRequestError, "response_format.type", "invalid_request_error"),
        (ASK | {"store": True}, openai.BadRequestError, "store", "unsupported_parameter"),
    ],
)
def test_refusals(make_client: MakeClient, ask: dict[str, Any], expected: type[openai.APIStatusError], param: str, code: str) -> None:
    with pytest.raises(expected) as caught:
        make_client().chat.completions.create(**ask)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_an_error_within_a_stream_reaches_the_client(make_client: MakeClient) -> None:
    client = make_client(Script(error=EngineDied("the engine died", hint="it restarts by itself"), error_after=2))
    texts = []
    with pytest.raises(openai.APIError, match="the engine died") as caught:
        texts.extend(chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**ASK, stream=True))
    assert caught.value.code == "engine_died"


def test_an_error_without_a_stream_is_an_error(make_client: MakeClient) -> None:
    client = make_client(Script(error=EngineDied("the engine died"), error_after=2))
    with pytest.raises(openai.InternalServerError, match="the engine died"):
        client.chat.completions.create(**ASK)
