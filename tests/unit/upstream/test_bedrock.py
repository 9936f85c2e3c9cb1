"""The upstream for Bedrock: the real boto3, against a real HTTP server that speaks Converse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from fakes.asking import ask, called, chat, finish_of, replaced, text_of, upstream_at
from fakes.bedrock import MODEL, bedrock_fake, prompt_tokens
from fakes.server import Answer, Called, Fake
from serving import tab

from penstock.core import errors
from penstock.core.types import Message, Request, Route, Sampling, Tool, ToolCall, ToolChoice
from penstock.upstream import Upstream

pytest.importorskip("boto3")


@asynccontextmanager
async def bedrock(*answers: Answer, **more: object) -> AsyncIterator[tuple[Fake, Upstream]]:
    settings = {"kind": "bedrock", "region": "us-east-1", "api_key": "AKID:secret", "models": {"nova": MODEL}, **more}
    async with bedrock_fake(*answers) as fake, upstream_at(fake.url, **settings) as upstream:
        yield fake, upstream


async def test_whole_and_streamed_answers_are_the_same() -> None:
    async with bedrock(Answer(finish="end_turn", cached=2)) as (fake, upstream):
        streamed, whole = [await ask(upstream, chat(streams=streams)) for streams in (True, False)]
        assert [asked.path for asked in fake.asked] == [f"/model/{MODEL}/converse-stream", f"/model/{MODEL}/converse"]
        assert "Credential=AKID/" in fake.asked[0].headers["authorization"]
        usage = finish_of(streamed).usage
        assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (prompt_tokens(fake.body), 2, fake.generated)
    assert not usage.estimated
    assert finish_of(streamed) == finish_of(whole)
    assert text_of(streamed) == text_of(whole) == "Hello, world."


async def test_tools_go_there_and_calls_come_back() -> None:
    request = chat(
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="Weather?"),
            Message(role="assistant", content="", tool_calls=(ToolCall(id="x", name="weather", arguments="{}"),)),
            Message(role="tool", content="rain", tool_call_id="x"),
            Message(role="user", content="So?"),
        ),
        tools=(Tool(name="weather", parameters={"type": "object"}),),
        tool_choice=ToolChoice(mode="required"),
        sampling=Sampling(max_tokens=7, temperature=0, stop=("x",)),
    )
    answer = Answer(tokens=("Well",), calls=(Called("call_1", "weather", '{"city":"Rome"}'),), finish="tool_use")
    async with bedrock(answer) as (fake, upstream):
        for streams in (True, False):
            events = await ask(upstream, replaced(request, streams=streams))
            assert called(events) == {0: ("call_1", "weather", '{"city":"Rome"}')}
            assert finish_of(events).reason == "tool_calls"
        body = fake.body
    assert body["system"] == [{"text": "Be brief."}]
    assert body["inferenceConfig"] == {"maxTokens": 7, "temperature": 0, "stopSequences": ["x"]}
    assert body["toolConfig"]["toolChoice"] == {"any": {}}
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [next(iter(block)) for block in body["messages"][2]["content"]] == ["toolResult", "text"]


async def test_a_client_that_leaves_pays_for_what_came() -> None:
    async with bedrock(Answer(hang_after=3)) as (fake, upstream):
        noted, got = tab(), ""
        async with aclosing(upstream.stream(chat(), Route(upstream="there", model="nova"), noted)) as events:
            async for event in events:
                got += event.text
                if got == "Hello, world":
                    break
        assert noted.usage is not None and noted.usage.estimated
        assert noted.usage.completion_tokens == fake.generated == 3


async def test_an_answer_cut_by_the_server_is_a_failure_that_costs_what_came() -> None:
    async with bedrock(Answer(cut_after=2)) as (fake, upstream):
        noted = tab()
        with pytest.raises(errors.UpstreamFailed, match="broke off"):
            await ask(upstream, chat(), noted)
        assert noted.usage is not None
        assert noted.usage.completion_tokens == fake.generated == 2


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "ValidationException", errors.InvalidRequest),
        (403, "AccessDeniedException", errors.UpstreamFailed),
        (429, "ThrottlingException", errors.Overloaded),
        (503, "ServiceUnavailableException", errors.UpstreamFailed),
    ],
)
async def test_a_refusal_becomes_an_error_of_ours(status: int, code: str, expected: type[Exception]) -> None:
    answer = Answer(status=status, body={"message": "no"}, headers={"x-amzn-ErrorType": code})
    async with bedrock(answer) as (fake, upstream):
        with pytest.raises(errors.PenstockError) as caught:
            await ask(upstream, chat())
        assert type(caught.value) is expected
        assert len(fake.asked) == 1  # boto3 does not try again: the dispatcher does


async def test_what_the_api_has_no_word_for_is_refused_by_name() -> None:
    async with bedrock() as (_, upstream):
        for request, param in ((Request(id="r", model="", prompt="x"), "prompt"), (chat(sampling=Sampling(top_k=3)), "top_k")):
            with pytest.raises(errors.Unsupported) as caught:
                await ask(upstream, request)
            assert caught.value.param == param


async def test_a_config_that_lacks_something_says_what() -> None:
    for settings, what in (({"models": ["m"]}, "region"), ({"region": "us-east-1", "api_key": "a:b"}, "models")):
        with pytest.raises(errors.ConfigError, match=what):
            async with upstream_at("", kind="bedrock", **settings):
                pass


async def test_what_still_waits_for_a_thread_when_its_client_leaves_is_never_asked() -> None:
    async with bedrock(max_connections=1) as (fake, upstream):
        first, second = (asyncio.create_task(ask(upstream, chat(text))) for text in ("first", "second"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([first, second])
        await ask(upstream, chat("third"))
        assert len(fake.asked) == 2
