"""OpenAI's own OpenAPI document against ours, and against what we answer. Skipped where that document is not at hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import yaml

from penstock.core.types import Delta
from penstock.gateway.openapi import OpenAPI
from penstock.upstream.fake import FakeUpstream
from tests.wire.played import CALLS, THOUGHT, WEATHER, Played
from tests.wire.test_openapi import Able, refs

Schemas = dict[str, Any]
ROOT = "#/components/schemas/"
OURS: Schemas = OpenAPI().document["components"]["schemas"]
REQUESTS = {
    "ChatFields": "CreateChatCompletionRequest",
    "CompletionFields": "CreateCompletionRequest",
    "EmbeddingFields": "CreateEmbeddingRequest",
    "ResponsesFields": "CreateResponse",
}
ASK: dict[str, Any] = {"model": "fake"}
CHAT = ASK | {"messages": [{"role": "user", "content": "hello"}]}
TOOLS = [{"type": "function", "function": WEATHER}]
FLAT_TOOLS = [{"type": "function", **WEATHER}]
NULLS = ("logprobs", "finish_reason", "usage")  # null in OpenAI's own examples of streams, though its schemas say otherwise
NARROWER = {("CompletionFields", "best_of")}  # only as many as n
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}


class Theirs:
    """The schemas of OpenAI's document, each read when it is needed: the whole takes seconds."""

    def __init__(self, document: Path) -> None:
        section = document.read_text().split("\ncomponents:\n  schemas:\n", 1)[1]
        parts = re.split(r"^    (\S+):\n", section, flags=re.MULTILINE)
        self._texts = dict(zip(parts[1::2], parts[2::2], strict=True))
        self._read: Schemas = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._read:
            text = re.split(r"^  ?\S", self._texts[name], maxsplit=1, flags=re.MULTILINE)[0]
            self._read[name] = yaml.load(text, Loader=yaml.CSafeLoader)
        return self._read[name]

    def with_all(self, name: str) -> Schemas:
        """A schema that stands alone."""
        wanted, found = [name], {}
        while wanted:
            latest = wanted.pop()
            if latest not in found:
                found[latest] = self[latest]
                wanted += [ref.removeprefix(ROOT) for ref in refs(found[latest])]
        return {"$ref": ROOT + name, "components": {"schemas": found}}


@pytest.fixture(scope="module")
def theirs(shared_data: Path) -> Theirs:
    return Theirs(shared_data / "specs" / "openai_openapi" / "openapi.yaml")


def resolved(schema: Any, schemas: Any) -> Any:
    while "$ref" in schema:
        schema = schemas[schema["$ref"].removeprefix(ROOT)]
    return schema


def properties(schema: Any, schemas: Any) -> Schemas:
    schema = resolved(schema, schemas)
    inherited = [properties(part, schemas) for part in schema.get("allOf", ())]
    return {name: value for part in (*inherited, schema.get("properties", {})) for name, value in part.items()}


def forms(schema: Any, schemas: Any) -> Iterator[Any]:
    """Every plain schema that a value may fit."""
    schema = resolved(schema, schemas)
    inner = [part for word in ("anyOf", "oneOf", "allOf") for part in schema.get(word, ())]
    for part in inner:
        yield from forms(part, schemas)
    if not inner or "type" in schema:
        yield schema


def types(schema: Any, schemas: Any) -> set[str]:
    found: set[str] = set()
    for form in forms(schema, schemas):
        given = form.get("type", "object" if "properties" in form else "string" if "enum" in form else ())
        found |= {given} if isinstance(given, str) else set(given)
    return found


def values(schema: Any, schemas: Any) -> set[str]:
    """The strings that are listed, where only listed ones go."""
    return {value for form in forms(schema, schemas) for value in form.get("enum", ()) if isinstance(value, str)}


def bounds(schema: Any, schemas: Any) -> tuple[float, float]:
    low, high = float("-inf"), float("inf")
    for form in forms(schema, schemas):
        low = max(low, form.get("minimum", form.get("exclusiveMinimum", low)))
        high = min(high, form.get("maximum", high))
    return float(low), float(high)  # their document has rounded some to what a double can hold


@pytest.mark.parametrize(("ours", "name"), REQUESTS.items())
def test_every_field_of_a_request_is_known(theirs: Theirs, ours: str, name: str) -> None:
    """Each is honoured, recorded or refused by name; what is honoured takes every type, word and number that it takes there."""
    mine, given = properties(OURS[ours], OURS), properties(theirs[name], theirs)
    assert set(given) <= set(mine)
    for field, schema in given.items():
        if (ours, field) in NARROWER or mine[field].get("description", "").startswith("Not honoured"):
            continue
        taken = types(mine[field], OURS) | ({"integer"} if "number" in types(mine[field], OURS) else set())
        assert types(schema, theirs) - {"null"} <= taken, field
        if values(mine[field], OURS):
            assert values(schema, theirs) <= values(mine[field], OURS), field
        low, high = bounds(mine[field], OURS)
        least, most = bounds(schema, theirs)
        assert (low <= least or least == float("-inf")) and (high >= most or most == float("inf")), field


@pytest.mark.parametrize(
    ("path", "ask", "upstream", "name"),
    [
        ("/v1/chat/completions", CHAT, Able(), "CreateChatCompletionResponse"),
        ("/v1/chat/completions", CHAT | {"n": 2, "logprobs": True, "top_logprobs": 1}, Able(), "CreateChatCompletionResponse"),
        ("/v1/chat/completions", CHAT | {"tools": TOOLS}, Played(*CALLS), "CreateChatCompletionResponse"),
        ("/v1/chat/completions", CHAT, Played(*THOUGHT), "CreateChatCompletionResponse"),
        ("/v1/chat/completions", CHAT, Played(Delta(text="x", finish_reason="content_filter")), "CreateChatCompletionResponse"),
        ("/v1/completions", ASK | {"prompt": "hello"}, Able(), "CreateCompletionResponse"),
        ("/v1/completions", ASK | {"prompt": ["a", "b"], "logprobs": 1}, Able(), "CreateCompletionResponse"),
        ("/v1/embeddings", ASK | {"input": ["a", "b"]}, Able(), "CreateEmbeddingResponse"),
        ("/v1/responses", ASK | {"input": "hello"}, Able(), "Response"),
        ("/v1/responses", ASK | {"input": "hello", **LOGPROBS}, Able(), "Response"),
        ("/v1/responses", ASK | {"input": "hello", "tools": FLAT_TOOLS}, Played(*CALLS), "Response"),
        ("/v1/responses", ASK | {"input": "hello"}, Played(*THOUGHT), "Response"),
        ("/v1/models", None, Able(), "ListModelsResponse"),
        ("/v1/models/fake", None, Able(), "Model"),
        ("/v1/chat/completions", CHAT | {"n": 0}, Able(), "ErrorResponse"),
    ],
)
async def test_answers_fit(
    make_gateway: Callable[..., Any], theirs: Theirs, path: str, ask: dict[str, Any] | None, upstream: FakeUpstream, name: str
) -> None:
    async with client(make_gateway(upstream=upstream)) as http:
        answer = await (http.get(path) if ask is None else http.post(path, json=ask))
    assert answer.status_code == (400 if name == "ErrorResponse" else 200), answer.text
    assert list(errors(theirs.with_all(name), answer.json())) == []


@pytest.mark.parametrize(
    ("path", "ask", "upstream", "name"),
    [
        ("/v1/chat/completions", CHAT | {"stream_options": {"include_usage": True}}, Able(), "CreateChatCompletionStreamResponse"),
        ("/v1/chat/completions", CHAT | {"tools": TOOLS}, Played(*THOUGHT[:-1], *CALLS), "CreateChatCompletionStreamResponse"),
        ("/v1/completions", ASK | {"prompt": "hello"}, Able(), "CreateCompletionResponse"),
        ("/v1/responses", ASK | {"input": "hello"}, Able(), "ResponseStreamEvent"),
        ("/v1/responses", ASK | {"input": "hello", "tools": FLAT_TOOLS}, Played(*THOUGHT[:-1], *CALLS), "ResponseStreamEvent"),
    ],
)
async def test_streams_fit(
    make_gateway: Callable[..., Any], theirs: Theirs, path: str, ask: dict[str, Any], upstream: FakeUpstream, name: str
) -> None:
    async with client(make_gateway(upstream=upstream)) as http:
        answer = await http.post(path, json=ask | {"stream": True})
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    assert len(chunks) > 3
    assert [
        (error, chunk) for chunk in chunks for error in errors(theirs.with_all(event_name(name, chunk, theirs)), chunk, streamed=True)
    ] == []


def event_name(name: str, event: Schemas, theirs: Theirs) -> str:
    """The one of several kinds of events that `event` says it is."""
    kinds = [ref.removeprefix(ROOT) for ref in refs(theirs[name])] if name == "ResponseStreamEvent" else [name]
    return next(kind for kind in kinds if len(kinds) == 1 or event["type"] in theirs[kind]["properties"]["type"]["enum"])


def client(gateway: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url="http://gateway")


def errors(schema: Schemas, value: Any, *, streamed: bool = False) -> Iterator[str]:
    for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(value):
        if streamed and error.instance is None and error.instance_path[-1] in NULLS:
            continue
        yield f"{error.instance_path}: {error.message}"
