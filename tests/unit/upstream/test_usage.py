"""Usage as vendors write it, and what is counted when they write none."""

from __future__ import annotations

import contextlib
import json
import time
from email.utils import formatdate

import pytest
from fakes.asking import chat

from penstock.core.errors import UpstreamFailed
from penstock.core.types import Message, Request, Usage
from penstock.upstream.anthropic_answer import AnthropicReader
from penstock.upstream.openai_answer import OpenAIReader
from penstock.upstream.refusal import read_error, retry_after
from penstock.upstream.usage import counted, prompt_tokens
from penstock.upstream.vertex_wire import GeminiReader

SHAPES = {
    "openai": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=4, reasoning_tokens=2),
    ),
    "null details": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "prompt_tokens_details": None,
            "completion_tokens_details": {"reasoning_tokens": None},
        },
        Usage(prompt_tokens=10, completion_tokens=5),
    ),
    "deepseek": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 4},
        Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=6),
    ),
    "moonshot": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 3},
        Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=3),
    ),
    "openrouter": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2},
        },
        Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=1, cache_write_tokens=2),
    ),
    "xai": (  # reasoning beside the completion
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22, "completion_tokens_details": {"reasoning_tokens": 7}},
        Usage(prompt_tokens=10, completion_tokens=12, reasoning_tokens=7),
    ),
    "gemini": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22},
        Usage(prompt_tokens=10, completion_tokens=12, reasoning_tokens=7),
    ),
    "more cached than sent": (
        {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 30},
        Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=10),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_vendors_way_of_counting(name: str) -> None:
    said, expected = SHAPES[name]
    reader = OpenAIReader("there", chat())
    reader.read([json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": said}).encode()])
    assert reader.usage() == expected


def test_zeros_are_no_usage() -> None:
    reader = OpenAIReader("there", chat())
    reader.read([b'{"choices": [{"delta": {"content": "Hi"}}], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}'])
    assert reader.usage().estimated
    assert reader.usage().completion_tokens == 1


@pytest.mark.parametrize("tokens", [-5, 10**30])
def test_impossible_counts_are_no_usage(tokens: int) -> None:
    reader = OpenAIReader("there", chat())
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": tokens}
    reader.read([json.dumps({"choices": [{"delta": {"content": "Hi"}}], "usage": usage}).encode()])
    assert reader.usage().estimated
    assert reader.usage().completion_tokens == 1


def test_anthropics_cache_stands_beside_the_input() -> None:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 7, "output_tokens": 5}
    reader = AnthropicReader("there", chat())
    reader.read([json.dumps({"type": "message", "content": [], "stop_reason": "end_turn", "usage": usage}).encode()])
    assert reader.usage() == Usage(prompt_tokens=30, completion_tokens=5, cached_tokens=20, cache_write_tokens=7)


def test_geminis_thoughts_stand_beside_the_candidates() -> None:
    usage = {
        "promptTokenCount": 9,
        "toolUsePromptTokenCount": 1,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 7,
        "cachedContentTokenCount": 4,
    }
    reader = GeminiReader("there", chat())
    reader.read([json.dumps({"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}).encode()])
    assert reader.usage() == Usage(prompt_tokens=10, completion_tokens=12, cached_tokens=4, reasoning_tokens=7)


def test_a_blocked_prompt_ends_as_filtered() -> None:
    reader = GeminiReader("there", chat())
    (delta,) = reader.read([b'{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}'])
    (finish,) = reader.end()
    assert delta.finish_reason == finish.reason == "content_filter"


def test_pieces_are_tokens_unless_they_are_too_long() -> None:
    assert counted(10, 45) == 10
    assert counted(2, 400) == 100


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (Request(id="r", model="m", prompt_token_ids=(1, 2, 3)), 3),
        (Request(id="r", model="m", prompt="x" * 40), 10),
        (Request(id="r", model="m", inputs=((1, 2), (3,))), 3),
        (Request(id="r", model="m", messages=(Message(role="user", content="x" * 40),)), 14),
    ],
)
def test_a_prompt_is_estimated_by_its_length(request_: Request, tokens: int) -> None:
    assert prompt_tokens(request_) == tokens


@pytest.mark.parametrize("reader", [OpenAIReader, AnthropicReader, GeminiReader])
@pytest.mark.parametrize("value", [b"[" * 60_000, b"9" * 5_000])
def test_json_that_no_decoder_takes_is_nonsense(reader: type[OpenAIReader], value: bytes) -> None:
    for field in (b"usage", b"error", b"else"):
        with contextlib.suppress(UpstreamFailed):
            reader("there", chat()).read([b'{"%s": %s}' % (field, value)])
    assert read_error(value).message == value.decode()[:400]


def test_times_to_wait_in_every_form() -> None:
    assert retry_after({"retry-after": "3"}) == 3
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    assert 50 < (retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)}) or 0) <= 60
    assert retry_after({"retry-after": "soon"}) is None
    for forever in ("inf", "1e300", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"):
        assert retry_after({"retry-after": forever}) == 86_400
    assert retry_after({"retry-after": "nan"}) == 0
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("reader", "event"),
    [
        (OpenAIReader, b'{"choices": [{"delta": {}, "finish_reason": "abort"}]}'),
        (OpenAIReader, b'{"choices": [{"message": {"content": ""}, "finish_reason": "insufficient_system_resource"}]}'),
        (AnthropicReader, b'{"type": "message_delta", "delta": {"stop_reason": "malformed_tool_use"}}'),
        (GeminiReader, b'{"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}'),
    ],
)
def test_an_answer_that_the_server_gave_up_is_a_failure(reader: type[OpenAIReader], event: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="gave up"):
        reader("there", chat()).read([event])
