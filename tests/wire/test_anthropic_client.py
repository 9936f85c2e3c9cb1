"""The official `anthropic` client, and two libraries built on it, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import SecretStr
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from penstock.core.errors import DeadlineExceeded, EngineDied, Overloaded
from penstock.core.types import Message, ToolCall
from penstock.upstream.fake import FakeUpstream, Script
from tests.wire.played import CALLS, THOUGHT, WEATHER, Played

MakeServer = Callable[..., Any]
MakeClient = Callable[..., Anthropic]
ASK: dict[str, Any] = {"model": "fake", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
TOOL: dict[str, Any] = {"name": "weather", "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}


class InTurn(FakeUpstream):
    """Calls the tool first, and says what it thinks of the result then."""

    async def stream(self, request: Any, route: Any, tab: Any) -> Any:
        self.requests.append(request)
        answered = any(message.role == "tool" for message in request.messages)
        async for event in Played(*(THOUGHT if answered else (*CALLS[:3], CALLS[-1]))).stream(request, route, tab):
            yield event


@pytest.fixture
def make_claude(make_server: MakeServer) -> Iterator[MakeClient]:
    with ExitStack() as stack:

        def make(*scripts: Script, upstream: FakeUpstream | None = None) -> Anthropic:
            url = make_server(*scripts, upstream=upstream).url
            return stack.enter_context(Anthropic(base_url=url, api_key="none", max_retries=0, timeout=20))

        yield make


def test_message(make_claude: MakeClient) -> None:
    answer = make_claude().messages.create(**ASK, system="Be brief.")
    assert answer.content[0].to_dict() == {"type": "text", "text": "Hello, world."}
    assert (answer.role, answer.stop_reason, answer.stop_sequence) == ("assistant", "end_turn", None)
    assert answer.usage.output_tokens == len("Hello, world.")
    assert answer._request_id == answer.id.removeprefix("msg_")


def test_streamed_message(make_claude: MakeClient) -> None:
    with make_claude().messages.stream(**ASK) as stream:
        assert "".join(stream.text_stream) == "Hello, world."
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", len("Hello, world."))
    assert final.usage.input_tokens == len("user: hello\n")


def test_raw_stream(make_claude: MakeClient) -> None:
    events = list(make_claude().messages.create(**ASK, stream=True))
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta" and event.delta.type == "text_delta")
    assert text == "Hello, world."
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")


def test_thinking_and_calls_in_a_stream(make_claude: MakeClient) -> None:
    with make_claude(upstream=Played(*THOUGHT[:-1], *CALLS)).messages.stream(**ASK, tools=[TOOL]) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.input for block in final.content if block.type == "tool_use"] == [{"city": "Rome"}, {}]
    assert final.stop_reason == "tool_use"


def test_a_tool_is_called_and_answered(make_claude: MakeClient) -> None:
    upstream = InTurn()
    client = make_claude(upstream=upstream)
    first = client.messages.create(**ASK, tools=[TOOL])
    (use,) = first.content
    assert use.type == "tool_use"
    result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]}
    turns = [*ASK["messages"], {"role": "assistant", "content": first.content}, result]
    second = client.messages.create(**ASK | {"messages": turns}, tools=[TOOL])
    assert second.content[-1].to_dict() == {"type": "text", "text": "Forty-two."}
    assert upstream.requests[-1].messages is not None
    assert upstream.requests[-1].messages[1:] == (
        Message(role="assistant", content="", tool_calls=(ToolCall(id="call_a", name="weather", arguments='{"city":"Rome"}'),)),
        Message(role="tool", content="sunny", tool_call_id="call_a"),
    )


def test_counting_tokens(make_claude: MakeClient) -> None:
    assert make_claude().messages.count_tokens(model="fake", messages=ASK["messages"]).input_tokens == len("user: hello\n")


async def test_async_client(make_server: MakeServer) -> None:
    async with AsyncAnthropic(base_url=make_server().url, api_key="none", max_retries=0) as client:
        answer = await client.messages.create(**ASK)
        assert answer.content[0].to_dict()["text"] == "Hello, world."
        async with client.messages.stream(**ASK) as stream:
            assert "".join([text async for text in stream.text_stream]) == "Hello, world."
        assert (await client.messages.count_tokens(model="fake", messages=ASK["messages"])).input_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "expected", "status"),
    [
        (Overloaded("the queue is full", retry_after_s=2.5), anthropic.RateLimitError, 429),
        (EngineDied("the engine died"), anthropic.InternalServerError, 503),
        (DeadlineExceeded("too late"), anthropic.InternalServerError, 504),
        (RuntimeError("secret path /home/me"), anthropic.InternalServerError, 500),
    ],
)
def test_errors_before_the_first_token(
    make_claude: MakeClient, error: Exception, expected: type[anthropic.APIStatusError], status: int, stream: bool
) -> None:
    with pytest.raises(expected) as caught:
        make_claude(Script(error=error)).messages.create(**ASK, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.request_id
    assert "secret" not in caught.value.response.text


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"model": "fakee"}, anthropic.NotFoundError), ({"max_tokens": 0}, anthropic.BadRequestError)],
)
def test_refusals(make_claude: MakeClient, change: dict[str, Any], expected: type[Exception]) -> None:
    with pytest.raises(expected):
        make_claude().messages.create(**ASK | change)


def test_an_error_within_a_stream_reaches_the_client(make_claude: MakeClient) -> None:
    client = make_claude(Script(error=EngineDied("the engine died"), error_after=2))
    with pytest.raises(anthropic.APIStatusError, match="the engine died"):
        list(client.messages.create(**ASK, stream=True))


@asynccontextmanager
async def langchain(url: str) -> AsyncIterator[ChatAnthropic]:
    """Its clients live as long as the process, unless somebody closes them."""
    model = ChatAnthropic(model_name="fake", base_url=url, api_key=SecretStr("none"), max_retries=0, timeout=20, stop=None)
    yield model
    model._client.close()
    await model._async_client.close()


async def test_langchain(make_server: MakeServer) -> None:
    turns = [SystemMessage("Be brief."), HumanMessage("hello")]
    async with langchain(make_server().url) as model:
        assert model.invoke(turns).content == "Hello, world."
        assert "".join(str(chunk.text) for chunk in model.stream(turns)) == "Hello, world."
        answer = await model.ainvoke(turns)
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_tokens"] == len("Hello, world.")
        assert "".join([str(chunk.text) async for chunk in model.astream(turns)]) == "Hello, world."


async def test_langchain_calls_a_tool(make_server: MakeServer) -> None:
    async with langchain(make_server(upstream=InTurn()).url) as plain:
        model = plain.bind_tools([TOOL])
        first = model.invoke("hello")
        assert isinstance(first, AIMessage)
        assert first.tool_calls == [{"name": "weather", "args": {"city": "Rome"}, "id": "call_a", "type": "tool_call"}]
        second = model.invoke([HumanMessage("hello"), first, ToolMessage("sunny", tool_call_id="call_a")])
        assert second.text == "Forty-two."


async def test_pydantic_ai(make_server: MakeServer) -> None:
    asked: list[str] = []

    def weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "sunny"

    async with AsyncAnthropic(base_url=make_server(upstream=InTurn()).url, api_key="none", max_retries=0) as client:
        model = AnthropicModel("fake", provider=AnthropicProvider(anthropic_client=client))
        agent = Agent(model, tools=[weather], instructions="Be brief.")
        assert (await agent.run("hello")).output == "Forty-two."
        async with agent.run_stream("hello") as run:
            assert await run.get_output() == "Forty-two."
    assert asked == ["Rome", "Rome"]
