"""The upstream for Vertex AI, against a real HTTP server of its REST shape, with credentials given to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from fakes.asking import ask, called, chat, finish_of, replaced, text_of
from fakes.server import Answer, Called, Fake
from fakes.vertex import MODEL, prompt_tokens, vertex_fake
from serving import tab

from penstock.core import errors
from penstock.core.config import UpstreamSettings
from penstock.core.types import Delta, Message, Request, Route, Sampling, Tool, ToolCall, ToolChoice
from penstock.upstream import Upstream
from penstock.upstream.vertex import vertex_upstream

pytest.importorskip("google.auth.transport.requests")


class Badge:
    """Credentials that are good for one use."""

    def __init__(self, *, works: bool = True) -> None:
        self.token: str | None = None
        self.refreshed = 0
        self._works = works

    @property
    def valid(self) -> bool:
        return self.refreshed > 0

    def refresh(self, request: object) -> None:
        if not self._works:
            raise OSError("no network")
        self.refreshed += 1
        self.token = f"token-{self.refreshed}"


@asynccontextmanager
async def vertex(*answers: Answer, badge: Badge | None = None) -> AsyncIterator[tuple[Fake, Upstream]]:
    async with vertex_fake(*answers) as fake:
        settings = UpstreamSettings(name="there", kind="vertex", url=fake.url, project="p", models=[MODEL, "claude-x"])
        upstream = vertex_upstream(settings, badge or Badge())
        await upstream.start()
        try:
            yield fake, upstream
        finally:
            await upstream.close()


async def test_whole_and_streamed_answers_are_the_same() -> None:
    badge = Badge()
    async with vertex(Answer(finish="STOP", thoughts=("Let", " me"), cached=2), badge=badge) as (fake, upstream):
        streamed, whole = [await ask(upstream, chat(streams=streams)) for streams in (True, False)]
        assert fake.asked[0].headers["authorization"] == "Bearer token-1"
        usage = finish_of(streamed).usage
        assert (usage.prompt_tokens, usage.cached_tokens, usage.reasoning_tokens) == (prompt_tokens(fake.body), 2, 2)
    assert badge.refreshed == 1
    assert usage.completion_tokens == fake.generated == 6
    assert not usage.estimated
    assert finish_of(streamed) == finish_of(whole)
    for events in (streamed, whole):
        assert text_of(events) == "Hello, world."
        assert "".join(event.reasoning for event in events if isinstance(event, Delta)) == "Let me"


async def test_claude_is_asked_in_its_own_dialect() -> None:
    async with vertex(Answer(finish="end_turn")) as (fake, upstream):
        for streams in (True, False):
            async with aclosing(upstream.stream(chat(streams=streams), Route(upstream="there", model="claude-x"), tab())) as events:
                assert text_of([event async for event in events]) == "Hello, world."
            assert "/anthropic/models/claude-x:" in fake.asked[-1].path
            assert fake.body["anthropic_version"] == "vertex-2023-10-16"
            assert "model" not in fake.body


async def test_tools_and_settings_go_there_and_calls_come_back() -> None:
    request = chat(
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="Weather?"),
            Message(role="assistant", content="", tool_calls=(ToolCall(id="x", name="weather", arguments='{"a":1}'),)),
            Message(role="tool", content="rain", tool_call_id="x"),
        ),
        tools=(Tool(name="weather", parameters={"type": "object"}),),
        tool_choice=ToolChoice(mode="required", name="weather"),
        sampling=Sampling(max_tokens=7, temperature=0, stop=("x",), seed=3),
        response_format={"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
    )
    answer = Answer(tokens=(), calls=(Called("", "weather", '{"city":"Rome"}'), Called("", "time", "{}")), finish="STOP")
    async with vertex(answer) as (fake, upstream):
        for streams in (True, False):
            events = await ask(upstream, replaced(request, streams=streams))
            assert called(events) == {0: ("call_0_0", "weather", '{"city":"Rome"}'), 1: ("call_0_1", "time", "{}")}
            assert finish_of(events).reason == "tool_calls"
        body = fake.body
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert body["generationConfig"] == {
        "maxOutputTokens": 7, "temperature": 0, "stopSequences": ["x"], "seed": 3,
        "responseMimeType": "application/json", "responseJsonSchema": {"type": "object"},
    }  # fmt: skip
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}
    assert body["contents"][1:] == [
        {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"a": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"output": "rain"}}}]},
    ]


async def test_a_client_that_leaves_pays_for_what_came() -> None:
    async with vertex(Answer(hang_after=3)) as (fake, upstream):
        noted, got = tab(), ""
        async with aclosing(upstream.stream(chat(), Route(upstream="there", model=MODEL), noted)) as events:
            async for event in events:
                got += event.text
                if got == "Hello, world":
                    break
        assert noted.usage is not None and not noted.usage.estimated  # each event counts
        assert noted.usage.completion_tokens == fake.generated == 3


async def test_an_answer_cut_by_the_server_is_a_failure_that_costs_what_came() -> None:
    async with vertex(Answer(cut_after=2, finish="STOP")) as (fake, upstream):
        noted = tab()
        with pytest.raises(errors.UpstreamFailed, match="broke off"):
            await ask(upstream, chat(), noted)
        assert noted.usage is not None
        assert noted.usage.completion_tokens == fake.generated == 2


async def test_a_refusal_becomes_an_error_of_ours() -> None:
    body = {"error": {"code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED"}}
    async with vertex(Answer(status=429, body=body)) as (_, upstream):
        with pytest.raises(errors.Overloaded):
            await ask(upstream, chat())


async def test_without_a_token_nothing_is_asked() -> None:
    async with vertex(badge=Badge(works=False)) as (fake, upstream):
        with pytest.raises(errors.UpstreamFailed, match="no token from Google"):
            await ask(upstream, chat())
        assert fake.asked == []


async def test_what_gemini_has_no_word_for_is_refused_by_name() -> None:
    async with vertex() as (_, upstream):
        for request, param in ((Request(id="r", model="", prompt="x"), "prompt"), (chat(sampling=Sampling(min_p=0.1)), "min_p")):
            with pytest.raises(errors.Unsupported) as caught:
                await ask(upstream, request)
            assert caught.value.param == param
