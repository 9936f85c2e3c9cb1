"""The upstream for OpenAI-compatible servers, against a real HTTP server that is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import aclosing

import pytest
from fakes.asking import ask, called, chat, finish_of, replaced, text_of, until, upstream_at
from fakes.openai import MODEL, openai_fake
from fakes.server import USAGE_SHAPES, WORDS, Answer, Called
from serving import tab

from penstock.core import errors
from penstock.core.types import Delta, Message, Request, Route, Sampling, Tool, ToolCall, ToolChoice, Usage, Vectors
from penstock.upstream import http
from penstock.upstream.openai_answer import OpenAIReader

ROUTE = Route(upstream="there", model=MODEL)


@pytest.mark.parametrize("shape", USAGE_SHAPES)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_a_streamed_answer_is_told_as_the_server_counted_it(shape: str, newline: str) -> None:
    async with openai_fake(Answer(usage=shape, cached=2, newline=newline)) as fake, upstream_at(fake.url) as upstream:
        noted = tab()
        events = await ask(upstream, chat("three words here"), noted)
    assert text_of(events) == "Hello, world."
    usage = finish_of(events).usage
    assert usage.completion_tokens == fake.generated == 4
    assert usage == noted.usage
    assert usage.estimated == (shape == "none")
    if shape != "none":
        assert usage == Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2)
    assert noted.first_s is not None


@pytest.mark.parametrize("shape", [shape for shape in USAGE_SHAPES if shape != "none"])
async def test_whole_and_streamed_answers_are_the_same(shape: str) -> None:
    answer = Answer(usage=shape, thoughts=("Let", " me"), cached=1)
    async with openai_fake(answer) as fake, upstream_at(fake.url) as upstream:
        streamed = await ask(upstream, chat())
        whole = await ask(upstream, chat(streams=False))
        assert [asked.body.get("stream", False) for asked in fake.asked] == [True, False]
    assert text_of(streamed) == text_of(whole) == "Hello, world."
    assert finish_of(streamed) == finish_of(whole)
    assert finish_of(whole).usage.reasoning_tokens == 2
    for events in (streamed, whole):
        assert "".join(event.reasoning for event in events if isinstance(event, Delta)) == "Let me"


async def test_a_whole_answer_without_usage_is_estimated() -> None:
    async with openai_fake(Answer(usage="none")) as fake, upstream_at(fake.url) as upstream:
        usage = finish_of(await ask(upstream, chat(streams=False))).usage
    assert usage.estimated
    assert 1 <= usage.completion_tokens <= 8


@pytest.mark.parametrize("owner", ["", "vllm"])
async def test_a_client_that_leaves_pays_for_what_came_and_stops_the_server(owner: str) -> None:
    async with openai_fake(Answer(hang_after=3), owned_by=owner) as fake, upstream_at(fake.url) as upstream:
        noted = tab()
        got = ""
        async with aclosing(upstream.stream(chat("three words here"), ROUTE, noted)) as events:
            async for event in events:
                got += event.text
                if got == "Hello, world":
                    break
        await until(lambda: fake.open == 0)
    assert noted.usage is not None
    assert noted.usage.completion_tokens == fake.generated == 3
    assert noted.usage.estimated == (owner == "")  # vLLM counts in each chunk


async def test_an_answer_cut_by_the_server_is_a_failure_that_costs_what_came() -> None:
    async with openai_fake(Answer(cut_after=2)) as fake, upstream_at(fake.url) as upstream:
        noted = tab()
        with pytest.raises(errors.UpstreamFailed, match="broke off its answer"):
            await ask(upstream, chat(), noted)
        assert noted.usage is not None and noted.usage.estimated
        assert noted.usage.completion_tokens == fake.generated == 2


async def test_a_stream_that_ends_early_but_politely_is_cut_too() -> None:
    async def politely(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "Hel"}}]})
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {chunk}\n\n".encode())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(politely, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, upstream_at(f"http://127.0.0.1:{port}/v1", models=[MODEL]) as upstream:
        with pytest.raises(errors.UpstreamFailed, match="broke off"):
            await ask(upstream, chat())


async def test_silence_is_a_failure() -> None:
    async with openai_fake(Answer(hang_after=1)) as fake, upstream_at(fake.url, idle_s=0.2) as upstream:
        with pytest.raises(errors.UpstreamFailed, match=r"sent nothing for 0\.2 s"):
            await ask(upstream, chat())


async def test_tools_go_there_and_calls_come_back() -> None:
    calls = (Called("call_1", "weather", '{"city": "Rome"}'), Called("call_2", "time", "{}"))
    request = chat(
        messages=(
            Message(role="user", content="Weather?"),
            Message(role="assistant", content="", tool_calls=(ToolCall(id="c0", name="weather", arguments="{}"),)),
            Message(role="tool", content="rain", tool_call_id="c0"),
        ),
        tools=(Tool(name="weather", description="tells it", parameters={"type": "object"}, strict=True),),
        tool_choice=ToolChoice(mode="required", name="weather"),
        parallel_tool_calls=True,
    )
    async with openai_fake(Answer(tokens=(), calls=calls, finish="tool_calls")) as fake, upstream_at(fake.url) as upstream:
        for streams in (True, False):
            events = await ask(upstream, replaced(request, streams=streams))
            assert called(events) == {0: ("call_1", "weather", '{"city": "Rome"}'), 1: ("call_2", "time", "{}")}
            assert finish_of(events).reason == "tool_calls"
        body = fake.body
    function = {"name": "weather", "description": "tells it", "parameters": {"type": "object"}, "strict": True}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is True
    call = {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    assert body["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "c0"},
    ]


@pytest.mark.parametrize("index", [None, 0])
async def test_calls_that_a_server_does_not_number_are_told_apart_by_their_ids(index: int | None) -> None:

    number = {} if index is None else {"index": index}
    pieces = [{"id": name, "function": {"name": name, "arguments": "{}"}, **number} for name in ("a", "b")]
    pieces.append({"function": {"arguments": " "}})
    reader = OpenAIReader("there", chat())
    chunks = [json.dumps({"choices": [{"delta": {"tool_calls": [piece]}}]}).encode() for piece in pieces]
    found = [(call.index, call.id, call.arguments) for delta in reader.read(chunks) for call in delta.tool_calls]
    assert found == [(0, "a", "{}"), (1, "b", "{}"), (1, None, " ")]


async def test_every_setting_reaches_the_server_and_defaults_stay_out() -> None:
    sampling = Sampling(max_tokens=9, temperature=0, top_k=5, top_p=0.5, seed=7, stop=("x",), logit_bias={3: 1.5}, logprobs=2)
    async with openai_fake() as fake, upstream_at(fake.url, api_key="sk-1", headers={"x-org": "us"}) as upstream:
        await ask(upstream, chat())
        assert fake.body == {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Say something short"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert fake.asked[-1].headers["authorization"] == "Bearer sk-1"
        assert fake.asked[-1].headers["x-org"] == "us"
        await ask(upstream, chat(n=2, sampling=sampling, response_format={"type": "json_object"}, reasoning_effort="low"))
        sent = {name: value for name, value in fake.body.items() if name not in ("model", "messages", "stream", "stream_options")}
        assert sent == {
            "max_tokens": 9, "temperature": 0, "top_k": 5, "top_p": 0.5, "seed": 7, "stop": ["x"], "logit_bias": {"3": 1.5},
            "logprobs": True, "top_logprobs": 2, "n": 2, "response_format": {"type": "json_object"}, "reasoning_effort": "low",
        }  # fmt: skip


async def test_tenants_are_kept_apart_in_the_prefix_cache_of_a_vllm() -> None:
    salts = []
    async with openai_fake(owned_by="vllm") as fake, upstream_at(fake.url) as upstream:
        for tenant in ("a", "b", "a"):
            await ask(upstream, chat(tenant=tenant))
            salts.append(fake.body["cache_salt"])
    assert salts[0] == salts[2] != salts[1]
    assert salts[0] != "a"


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("is_chat", [True, False])
async def test_logprobs_of_every_token(is_chat: bool, streams: bool) -> None:
    sampling = Sampling(logprobs=2)
    request = (
        chat(streams=streams, sampling=sampling) if is_chat else Request(id="r", model="", prompt="Go", streams=streams, sampling=sampling)
    )
    async with openai_fake() as fake, upstream_at(fake.url) as upstream:
        events = await ask(upstream, request)
        assert fake.asked[-1].path == ("/v1/chat/completions" if is_chat else "/v1/completions")
    scored = [token for event in events if isinstance(event, Delta) for token in event.logprobs or ()]
    assert tuple(token.token for token in scored) == WORDS
    assert all(len(token.top) == 2 and token.logprob == -0.5 for token in scored)


async def test_choices_stay_apart_in_a_burst() -> None:
    async with openai_fake() as fake, upstream_at(fake.url) as upstream:
        events = await ask(upstream, chat(n=3))
    texts = {0: "", 1: "", 2: ""}
    pieces = dict.fromkeys(texts, 0)
    for event in events[:-1]:
        assert isinstance(event, Delta)
        texts[event.index] += event.text
        pieces[event.index] += event.num_pieces if event.text else 0
    assert set(texts.values()) == {"Hello, world."}
    assert set(pieces.values()) == {4}
    assert finish_of(events).usage.completion_tokens == fake.generated == 12


async def test_vectors_in_the_order_asked() -> None:
    async with openai_fake() as fake, upstream_at(fake.url) as upstream:
        vectors, finish = await ask(upstream, Request(id="r", model="", inputs=("one two", "three"), dimensions=2))
    assert vectors == Vectors(vectors=((0.0, 0.0), (1.0, 1.0)))
    assert finish.usage == Usage(prompt_tokens=3)
    assert fake.body["dimensions"] == 2


REFUSALS = [
    (400, {"error": {"message": "bad top_k", "param": "top_k", "type": "invalid_request_error"}}, errors.InvalidRequest),
    (400, {"error": {"message": "This model's maximum context length is 10 tokens", "code": None}}, errors.ContextTooLong),
    (400, {"error": {"code": 400, "message": "too big", "type": "exceed_context_size_error"}}, errors.ContextTooLong),  # llama.cpp
    (401, {"error": {"message": "Incorrect API key provided: sk-secret"}}, errors.UpstreamFailed),
    (402, {"error": {"message": "Insufficient Balance"}}, errors.UpstreamFailed),
    (403, {"error": "forbidden"}, errors.UpstreamFailed),
    (404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, errors.ModelNotFound),
    (404, {"detail": "Not Found"}, errors.UpstreamFailed),
    (413, "too much", errors.TooLarge),
    (422, {"error": "inputs tokens", "error_type": "validation"}, errors.InvalidRequest),  # TGI
    (429, {"error": {"message": "slow down"}}, errors.Overloaded),
    (429, {"error": {"message": "quota", "code": "insufficient_quota"}}, errors.UpstreamFailed),
    (500, {"object": "error", "message": "CUDA out of memory"}, errors.UpstreamFailed),  # vLLM
    (503, "<html>nginx</html>", errors.UpstreamFailed),
    (302, "", errors.UpstreamFailed),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSALS)
@pytest.mark.parametrize("streams", [True, False])
async def test_a_refusal_becomes_an_error_of_ours(status: int, body: object, kind: type[Exception], streams: bool) -> None:
    async with openai_fake(Answer(status=status, body=body, headers={"retry-after": "7"})) as fake, upstream_at(fake.url) as upstream:
        noted = tab()
        with pytest.raises(errors.PenstockError) as caught:
            await ask(upstream, chat(streams=streams), noted)
    assert type(caught.value) is kind
    assert "'there'" in caught.value.message and "secret" not in str(caught.value)
    assert noted.usage is None
    assert ("credentials" in caught.value.message) == (status in (401, 403))
    if kind is errors.Overloaded:
        assert caught.value.retry_after_s == 7
    if status == 400 and kind is errors.InvalidRequest:
        assert caught.value.param == "top_k"


@pytest.mark.parametrize("asked", [Request(id="r", model="m", inputs=("x",)), Request(id="r", model="m", prompt="x")])
async def test_a_server_for_chats_alone_is_not_blamed_for_it(asked: Request) -> None:
    async with openai_fake(Answer(status=404, body={"detail": "Not Found"})) as fake, upstream_at(fake.url) as upstream:
        with pytest.raises(errors.Unsupported, match="'there' has no /"):
            await ask(upstream, asked)


@pytest.mark.parametrize("index", [-1, 1, 77])
def test_a_choice_that_nobody_asked_for_is_nonsense(index: int) -> None:
    with pytest.raises(errors.UpstreamFailed, match=f"choice {index} of 1"):
        OpenAIReader("there", chat()).read([b'{"choices": [{"index": %d, "delta": {"content": "x"}}]}' % index])


async def test_an_error_within_a_stream_is_an_error() -> None:

    with pytest.raises(errors.ContextTooLong):
        OpenAIReader("there", chat()).read([b'{"error": {"code": 400, "message": "maximum context length is 4"}}'])
    with pytest.raises(errors.UpstreamFailed, match="no chunk"):
        OpenAIReader("there", chat()).read([b"<html>"])


async def test_a_server_that_is_away_cannot_be_reached() -> None:
    async with openai_fake() as fake, upstream_at(fake.url) as upstream:
        pass
    async with upstream_at(fake.url, models=["m"]) as upstream:
        with pytest.raises(errors.UpstreamFailed, match="cannot be reached"):
            await ask(upstream, chat())
    with pytest.raises(errors.LoadError, match="does not list its models"):
        async with upstream_at(fake.url):
            pass


async def test_models_by_the_names_of_the_config() -> None:
    async with openai_fake(models=("a", "b")) as fake:
        async with upstream_at(fake.url) as upstream:
            assert [card.id for card in upstream.models()] == ["a", "b"]
        async with upstream_at(fake.url, models={"mine": "b"}, context_tokens=99, max_output_tokens=5) as upstream:
            (card,) = upstream.models()
            assert (card.id, card.root, card.max_model_len, card.max_output_tokens) == ("mine", "b", 99, 5)
            await ask(upstream, chat())
            assert fake.body["model"] == "b"


async def test_models_that_make_vectors_are_told_by_their_names() -> None:
    async with openai_fake(models=("gpt", "text-embedding-3-small")) as fake, upstream_at(fake.url) as upstream:
        assert [card.embeds for card in upstream.models()] == [False, True]


async def test_what_only_an_engine_of_ours_can_do_is_refused_by_name() -> None:
    async with openai_fake() as fake, upstream_at(fake.url) as upstream:
        with pytest.raises(errors.Unsupported) as caught:
            await ask(upstream, Request(id="r", model="", prompt="x", echo=True))
        assert caught.value.param == "echo"
        assert fake.asked == []


async def test_connections_are_used_again_also_after_streams() -> None:
    async with openai_fake(Answer(late_end_s=0.01)) as fake, upstream_at(fake.url) as upstream:
        for _ in range(3):
            await ask(upstream, chat())
            await until(lambda: fake.open == 0)
            await asyncio.sleep(0.02)  # for the last bytes to come
        await ask(upstream, chat(streams=False))
        assert len(fake.connections) == 1


async def test_a_kept_connection_that_the_server_just_closed_costs_no_request() -> None:
    asked = []

    async def forgetful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keeps the connection after its first answer, and closes it when the second question comes."""
        for body in (b'{"choices": [{"message": {"content": "Yes"}, "finish_reason": "stop"}]}', b""):
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
            except asyncio.IncompleteReadError:
                break
            if b"content-length: " in head:
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            asked.append(head.split(b" ")[0])
            if body:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(forgetful, "127.0.0.1", 0)
    async with server, upstream_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", models=[MODEL]) as upstream:
        for _ in range(3):
            assert text_of(await ask(upstream, chat(streams=False))) == "Yes"
    assert asked == [b"get", *[b"post"] * 6]  # every other one met a closed connection


async def test_a_large_prompt_goes_through() -> None:
    async with openai_fake() as fake, upstream_at(fake.url) as upstream:
        await ask(upstream, chat("word " * 500_000))
    assert len(fake.body["messages"][0]["content"]) == 2_500_000


async def test_closing_ends_answers_under_way() -> None:
    async with openai_fake(Answer(hang_after=1)) as fake, upstream_at(fake.url) as upstream:
        answering = asyncio.create_task(ask(upstream, chat()))
        await until(lambda: fake.generated == 1)
        await upstream.close()
        with pytest.raises(errors.UpstreamFailed):
            await answering
        assert not upstream.health().ready


async def test_the_longest_answer_of_the_config_is_asked_for_where_the_client_names_none() -> None:
    async with openai_fake() as fake, upstream_at(fake.url, max_output_tokens=3) as upstream:
        bounded = finish_of(await ask(upstream, chat()))
        await ask(upstream, chat(sampling=Sampling(max_tokens=2)))
        assert [asked.body["max_tokens"] for asked in fake.asked] == [3, 2]
    assert (bounded.reason, bounded.usage.completion_tokens) == ("length", 3)


async def test_a_request_that_the_server_may_have_worked_on_is_not_sent_again_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "STALE_S", 0.05)
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            await asyncio.sleep(0.1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with upstream_at(url, models=["m"]) as upstream:
        listings = asked
        with pytest.raises(errors.UpstreamFailed):
            await ask(upstream, chat())
    server.close()
    await server.wait_closed()
    assert asked - listings == 1
