"""Libraries that speak OpenAI's formats, against a real server: LangChain, LlamaIndex and pydantic-ai."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from penstock.core.types import Delta, Finish, Request, Route
from penstock.trace import Tab
from tests.wire.played import CALLS, THOUGHT, USAGE, Played

pytest.importorskip("langchain_openai")
pytest.importorskip("llama_index.llms.openai_like")
pytest.importorskip("pydantic_ai")

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic_ai import Agent
from pydantic_ai.messages import ThinkingPart
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

MakeServer = Callable[..., Any]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Turns(Played):
    """Calls a tool first; answers once it has been told what the tool said."""

    async def stream(self, request: Request, route: Route, tab: Tab) -> Any:
        self.requests.append(request)
        tab.usage = USAGE
        answered = any(message.role == "tool" for message in request.messages or ())
        for delta in THOUGHT if answered else CALLS[:3] + CALLS[-1:]:
            yield delta
        yield Finish(reason="stop" if answered else "tool_calls", usage=USAGE)


@pytest.fixture
def spoken(make_server: MakeServer) -> str:
    """The URL of a server that says: Hello, world."""
    return str(make_server().url)


@pytest.fixture
def turning(make_server: MakeServer) -> Any:
    """A server whose model calls a tool and then answers."""
    return make_server(upstream=Turns())


@pytest.fixture
async def waiting(make_server: MakeServer) -> AsyncIterator[httpx.AsyncClient]:
    """For clients that do not block; closed before the server is."""
    async with httpx.AsyncClient() as client:
        yield client


@pytest.fixture
def blocking(make_server: MakeServer) -> Any:
    """For clients that block; closed before the server is."""
    with httpx.Client() as client:
        yield client


@pytest.fixture
def langchain(blocking: httpx.Client, waiting: httpx.AsyncClient) -> Callable[..., Any]:
    """A model of LangChain's."""

    def make(kind: type[Any], url: str, **options: object) -> Any:
        both = {"http_client": blocking, "http_async_client": waiting}
        return kind(base_url=f"{url}/v1", api_key="none", model="fake", max_retries=0, **both, **options)

    return make


@pytest.fixture
def llama_index(spoken: str, blocking: httpx.Client, waiting: httpx.AsyncClient) -> Callable[[bool], OpenAILike]:
    """A model of LlamaIndex's."""

    def make(is_chat: bool) -> OpenAILike:
        both = {"http_client": blocking, "async_http_client": waiting}
        return OpenAILike(api_base=f"{spoken}/v1", api_key="none", model="fake", is_chat_model=is_chat, max_retries=0, **both)

    return make


@pytest.fixture
def agent(waiting: httpx.AsyncClient) -> Callable[..., Agent[None, str]]:
    """An agent of pydantic-ai's."""

    def make(url: str, *, responses: bool) -> Agent[None, str]:
        provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none", http_client=waiting)
        model = OpenAIResponsesModel("fake", provider=provider) if responses else OpenAIChatModel("fake", provider=provider)
        return Agent(model, instructions="Be brief.")

    return make


# LangChain


@pytest.mark.parametrize("responses", [False, True])
async def test_langchain(langchain: Callable[..., Any], spoken: str, responses: bool) -> None:
    model = langchain(ChatOpenAI, spoken, use_responses_api=responses)
    asked = [SystemMessage("Be brief."), HumanMessage("hello")]
    answer = model.invoke(asked)
    assert answer.text == "Hello, world."
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == len("Hello, world.")
    assert (await model.ainvoke(asked)).text == "Hello, world."
    assert "".join(chunk.text for chunk in model.stream(asked)) == "Hello, world."
    assert "".join([chunk.text async for chunk in model.astream(asked)]) == "Hello, world."


def test_langchain_completions(langchain: Callable[..., Any], spoken: str) -> None:
    model = langchain(OpenAI, spoken)
    assert model.invoke("hello") == "Hello, world."
    assert "".join(model.stream("hello")) == "Hello, world."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("responses", [False, True])
def test_langchain_calls_a_tool_and_tells_what_it_said(langchain: Callable[..., Any], turning: Any, responses: bool, stream: bool) -> None:
    model = langchain(ChatOpenAI, turning.url, use_responses_api=responses).bind_tools([WEATHER])
    asked: list[Any] = [HumanMessage("How is Rome?")]
    called = sum(list(model.stream(asked))[1:], next(iter(model.stream(asked)))) if stream else model.invoke(asked)
    assert isinstance(called, AIMessage)
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Rome"})
    answer = model.invoke([*asked, called, ToolMessage("warm", tool_call_id=call["id"])])
    assert answer.text == "Forty-two."


# LlamaIndex


async def test_llama_index(llama_index: Callable[[bool], OpenAILike]) -> None:
    model = llama_index(True)
    asked = [ChatMessage(role="user", content="hello")]
    assert model.chat(asked).message.content == "Hello, world."
    assert (await model.achat(asked)).message.content == "Hello, world."
    assert "".join(piece.delta or "" for piece in model.stream_chat(asked)) == "Hello, world."
    assert "".join([piece.delta or "" async for piece in await model.astream_chat(asked)]) == "Hello, world."


async def test_llama_index_completions(llama_index: Callable[[bool], OpenAILike]) -> None:
    model = llama_index(False)
    assert model.complete("hello").text == "Hello, world."
    assert (await model.acomplete("hello")).text == "Hello, world."
    assert "".join(piece.delta or "" for piece in model.stream_complete("hello")) == "Hello, world."


# pydantic-ai


@pytest.mark.parametrize("responses", [False, True])
async def test_pydantic_ai_runs_a_tool(agent: Callable[..., Agent[None, str]], turning: Any, responses: bool) -> None:
    asking = agent(turning.url, responses=responses)
    cities: list[str] = []

    @asking.tool_plain
    def weather(city: str) -> str:
        """The weather of a city."""
        cities.append(city)
        return "warm"

    result = await asking.run("How is Rome?")
    assert (result.output, cities) == ("Forty-two.", ["Rome"])
    (thought,) = [part for part in result.all_messages()[-1].parts if isinstance(part, ThinkingPart)]
    assert (thought.provider_details or {}).get("raw_content", [thought.content]) == ["Let me see."]
    assert result.usage.output_tokens == 2 * USAGE.completion_tokens
    again = await asking.run("And Oslo?", message_history=result.all_messages())
    assert again.output == "Forty-two."
    assert any(message.reasoning == "Let me see." for message in turning.upstream.requests[-1].messages)


@pytest.mark.parametrize("responses", [False, True])
async def test_pydantic_ai_streams(agent: Callable[..., Agent[None, str]], spoken: str, responses: bool) -> None:
    async with agent(spoken, responses=responses).run_stream("hello") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == "Hello, world."


def test_pydantic_ai_waits(agent: Callable[..., Agent[None, str]], make_server: MakeServer) -> None:
    server = make_server(upstream=Played(Delta(text="Hello.", finish_reason="stop")))
    assert agent(server.url, responses=False).run_sync("hello").output == "Hello."
