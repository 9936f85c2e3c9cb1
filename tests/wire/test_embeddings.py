"""`/v1/embeddings`: every kind of input, both encodings, with the official client and LangChain."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from openai import AsyncOpenAI, OpenAI
from pydantic import SecretStr

from penstock.core.errors import ContextTooLong
from penstock.core.types import Event, Finish, Request, Route, Usage, Vectors
from penstock.trace import Tab
from penstock.upstream.fake import FakeUpstream

MakeServer = Callable[..., Any]
PATH = "/v1/embeddings"
VECTOR = (0.5, -0.25, 0.125)  # exact as 32-bit floats


class Embedder(FakeUpstream):
    """The n-th input's vector is n times `VECTOR`; a token is a character, or what the client took for one."""

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        inputs = request.inputs or ()
        if len(inputs[0]) > 100:
            raise ContextTooLong("too long", param="input")
        tab.usage = Usage(prompt_tokens=sum(map(len, inputs)))
        size = request.dimensions or len(VECTOR)
        yield Vectors(vectors=tuple(tuple(number * x for x in VECTOR[:size]) for number in range(1, len(inputs) + 1)))
        yield Finish(reason="stop", usage=tab.usage)


@pytest.fixture
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture
async def client(make_gateway: Any, embedder: Embedder) -> AsyncGenerator[httpx.AsyncClient, None]:
    transport = httpx.ASGITransport(make_gateway(upstream=embedder).app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        yield http


@pytest.mark.parametrize(
    ("given", "inputs", "tokens"),
    [
        ("hello", ("hello",), 5),
        (["hello", "you"], ("hello", "you"), 8),
        ([7, 8], ((7, 8),), 2),
        ([[7, 8], [9]], ((7, 8), (9,)), 3),
    ],
)
async def test_every_kind_of_input(client: httpx.AsyncClient, embedder: Embedder, given: object, inputs: object, tokens: int) -> None:
    answer = await client.post(PATH, json={"model": "fake", "input": given, "user": "me"})
    assert embedder.requests[0].inputs == inputs
    assert answer.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": n, "embedding": [x * (n + 1) for x in VECTOR]}
            for n in range(len(embedder.requests[0].inputs or ()))
        ],
        "model": "fake",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    assert answer.headers["x-penstock-route"] == "fake/fake"


async def test_base64_is_little_endian_floats(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json={"input": "hello", "encoding_format": "base64"})
    assert struct.unpack("<3f", base64.b64decode(answer.json()["data"][0]["embedding"])) == VECTOR


async def test_dimensions(client: httpx.AsyncClient, embedder: Embedder) -> None:
    answer = await client.post(PATH, json={"input": "hello", "dimensions": 2, "encoding_format": "float"})
    assert answer.json()["data"][0]["embedding"] == list(VECTOR[:2])
    assert embedder.requests[0].dimensions == 2


@pytest.mark.feature("embeddings", "explain")
async def test_it_explains_itself(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json={"input": "hello", "penstock": {"explain": True}})
    assert answer.json()["penstock"]["attempts"][0]["usage"]["prompt_tokens"] == 5


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["x", ""]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["x", 7]}, "input"),
        ({"input": ["x", [7]]}, "input"),
        ({"input": [7, [7]]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": "x" * 101}, "input"),
        ({"input": {"text": "x"}}, "input"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "input_type": "query"}, "input_type"),
        ({"input": "x", "dimension": 2}, "dimension"),
    ],
)
async def test_refusals(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    answer = await client.post(PATH, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.feature("embeddings")
def test_openai_client(make_server: MakeServer, embedder: Embedder) -> None:
    with OpenAI(base_url=f"{make_server(upstream=embedder).url}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model="fake", input=["a", "b"])
        assert [tuple(item.embedding) for item in answer.data] == [VECTOR, tuple(2 * x for x in VECTOR)]
        assert answer.usage.total_tokens == 2
        assert client.embeddings.create(model="fake", input="a", encoding_format="float").data[0].embedding == list(VECTOR)
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="fakee", input="a")


async def test_async_openai_client(make_server: MakeServer, embedder: Embedder) -> None:
    async with AsyncOpenAI(base_url=f"{make_server(upstream=embedder).url}/v1", api_key="none", max_retries=0) as client:
        assert tuple((await client.embeddings.create(model="fake", input="a")).data[0].embedding) == VECTOR


async def test_langchain(make_server: MakeServer, embedder: Embedder) -> None:
    url = f"{make_server(upstream=embedder).url}/v1"
    model = OpenAIEmbeddings(model="fake", base_url=url, api_key=SecretStr("none"), check_embedding_ctx_length=False, max_retries=0)
    assert tuple(model.embed_query("a")) == VECTOR
    assert len(await model.aembed_documents(["a", "b"])) == 2
    model.client._client.close()
    await model.async_client._client.close()
