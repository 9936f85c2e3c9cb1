"""The OpenAPI document of this server, made of what the code reads and writes. `/openapi.json` serves it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from penstock import __version__
from penstock.core.types import Health
from penstock.gateway import dialects
from penstock.gateway.connection import EVENTS, JSON
from penstock.gateway.routes import ModelBody, ModelList
from penstock.gateway.schemas import Kind, Known, Schema, any_of, schemas_of
from penstock.gateway.wire.answer import Answer
from penstock.gateway.wire.anthropic_errors import AnthropicErrorBody
from penstock.gateway.wire.chat_answer import ChatChoice, ChatPiece
from penstock.gateway.wire.dialect import Dialect
from penstock.gateway.wire.embeddings import Embeddings
from penstock.gateway.wire.errors import ErrorBody
from penstock.gateway.wire.fields import DETOKENIZE_NEUTRAL, TOKENIZE_NEUTRAL
from penstock.gateway.wire.messages_answer import MessageBody, TokenCount
from penstock.gateway.wire.messages_fields import COUNT_NEUTRAL, CountFields
from penstock.gateway.wire.responses_answer import CallOutput, MessageOutput, ReasoningOutput, ResponseBody
from penstock.gateway.wire.text_answer import TextChoice
from penstock.gateway.wire.tokens import Detokenized, DetokenizeFields, Tokenized, TokenizeFields

ANSWERS = (
    *(Answer, ChatChoice, ChatPiece, TextChoice, ResponseBody, MessageOutput, ReasoningOutput, CallOutput),
    *(MessageBody, TokenCount, Embeddings, ModelBody, ModelList, Tokenized, Detokenized, ErrorBody, AnthropicErrorBody, Health),
)
CHAT, TEXT, CHAT_CHUNK, TEXT_CHUNK = "ChatCompletion", "TextCompletion", "ChatCompletionChunk", "TextCompletionChunk"
ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}, "description": "A model's name."}
EXPLAIN = {
    "name": "x-penstock-explain",
    "in": "header",
    "schema": {"type": "string"},
    "description": "true: the answer has the `penstock` object.",
}
HEADERS = {
    "x-request-id": "The id of the request; the client's own where it sent one.",
    "x-penstock-cost": "US dollars as a plain decimal; unknown; or pending, where a comment at the end of the stream says it.",
    "x-penstock-model": "The model that answered.",
    "x-penstock-route": "The upstream and its model.",
    "x-penstock-cache": "off, bypass, miss or hit.",
    "x-penstock-warning": "A limit of the key that only warns is exceeded.",
}


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path. `answer` and `chunk` name schemas; None: plain text, or no stream."""

    path: str
    summary: str
    answer: str | None
    tag: str
    body: str | None = None
    chunk: str | None = None
    generates: bool = False
    error: Kind = ErrorBody
    parameters: Sequence[dict[str, Any]] = ()

    @property
    def method(self) -> str:
        return "get" if self.body is None else "post"


class OpenAPI:
    """Made when it is first asked for."""

    @cached_property
    def document(self) -> dict[str, Any]:
        """The document as data."""
        names, schemas = _schemas()
        paths: dict[str, dict[str, Any]] = {}
        for operation in _operations(names):
            paths.setdefault(operation.path, {})[operation.method] = _operation(operation, names)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Penstock",
                "version": __version__,
                "description": "An inference server and gateway that speaks OpenAI's and Anthropic's formats. What is not "
                "honoured is refused by its name.",
                "license": {"name": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"bearer": []}, {"x-api-key": []}, {}],
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "description": "A key made by `penstock keys create`."},
                    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
        }

    async def serve(self, request: HTTPRequest) -> Response:
        return Response(self._written, media_type=JSON)

    @cached_property
    def _written(self) -> bytes:
        return msgspec.json.encode(self.document)


def _operations(names: dict[Kind, str]) -> list[Operation]:
    def generating(path: str, summary: str, dialect: Dialect[Any, Any], answer: str, chunk: str | None, **more: Any) -> Operation:
        body = names[dialect.fields]
        return Operation(path=path, summary=summary, body=body, answer=answer, chunk=chunk, generates=True, parameters=(EXPLAIN,), **more)

    def plain(path: str, summary: str, tag: str, answer: Kind | None, body: Kind | None = None, **more: Any) -> Operation:
        answered, asked = None if answer is None else names[answer], None if body is None else names[body]
        return Operation(path=path, summary=summary, tag=tag, answer=answered, body=asked, **more)

    openai, anthropic, server = "OpenAI", "Anthropic", "Server"
    of_anthropic: dict[str, Any] = {"tag": anthropic, "error": AnthropicErrorBody}
    return [
        generating("/v1/chat/completions", "Answer a chat", dialects.CHAT, CHAT, CHAT_CHUNK, tag=openai),
        generating("/v1/completions", "Continue a text", dialects.TEXT, TEXT, TEXT_CHUNK, tag=openai),
        generating("/v1/responses", "Answer, in the newer format", dialects.RESPONSES, names[ResponseBody], "Event", tag=openai),
        generating("/v1/embeddings", "Texts to vectors", dialects.EMBEDDINGS, names[Embeddings], None, tag=openai),
        plain("/v1/models", "Every served model", openai, ModelList),
        plain("/v1/models/{id}", "One served model", openai, ModelBody, parameters=(ID,)),
        generating("/v1/messages", "Answer a chat", dialects.MESSAGES, names[MessageBody], "Event", **of_anthropic),
        plain("/v1/messages/count_tokens", "Tokens of a prompt", body=CountFields, answer=TokenCount, **of_anthropic),
        plain("/tokenize", "Text or chat to tokens", server, Tokenized, TokenizeFields),
        plain("/detokenize", "Tokens to text", server, Detokenized, DetokenizeFields),
        plain("/health", "Alive: the process turns", server, None),
        plain("/ready", "Whether requests would be answered now; 503 and why if not", server, Health),
        plain("/version", "Which Penstock this is", server, None),
        plain("/metrics", "Prometheus metrics", server, None),
        plain("/openapi.json", "This document", server, None),
    ]


def _operation(operation: Operation, names: dict[Kind, str]) -> dict[str, Any]:
    written: dict[str, Any] = {
        "operationId": f"{operation.method}{operation.path.replace('/', '_').replace('.', '_').replace('{', '').replace('}', '')}",
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": _responses(operation, names),
    }
    if operation.parameters:
        written["parameters"] = list(operation.parameters)
    if operation.body is not None:
        written["requestBody"] = {"required": True, "content": {JSON: {"schema": any_of([operation.body])}}}
    return written


def _responses(operation: Operation, names: dict[Kind, str]) -> dict[str, Any]:
    content: dict[str, Any] = (
        {"text/plain": {"schema": {"type": "string"}}} if operation.path == "/metrics" else {JSON: {"schema": {"type": "object"}}}
    )
    if operation.answer is not None:
        content = {JSON: {"schema": any_of([operation.answer])}}
    if operation.chunk is not None:
        content[EVENTS] = {"schema": _event(operation.chunk)}
    answer: dict[str, Any] = {"description": "The answer", "content": content}
    if operation.generates:
        answer["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()}
    error = {JSON: {"schema": any_of([names[operation.error]])}}
    told = {"4XX": {"description": "Why not, and what to do", "content": error}, "5XX": {"description": "Why not now", "content": error}}
    if operation.path == "/ready":
        told["503"] = {"description": "Not ready, and why", "content": content}
    return {"200": answer, **told}


def _event(chunk: str) -> Schema:
    """One server-sent event. OpenAI's streams end with one whose data is `[DONE]`."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": any_of([chunk])}
    return {"type": "object", "properties": {"event": {"type": "string"}, "data": data}, "required": ["data"]}


def _schemas() -> tuple[dict[Kind, str], dict[str, Schema]]:
    spoken = (dialects.CHAT, dialects.TEXT, dialects.RESPONSES, dialects.MESSAGES, dialects.EMBEDDINGS)
    requests: dict[Kind, Known] = {dialect.fields: (dialect.neutral, dialect.recorded) for dialect in spoken}
    requests[CountFields] = (COUNT_NEUTRAL, ())
    requests[TokenizeFields] = (TOKENIZE_NEUTRAL, ())
    requests[DetokenizeFields] = (DETOKENIZE_NEUTRAL, ())
    names, schemas = schemas_of(requests, ANSWERS)
    answer = schemas.pop(names[Answer])
    for name, chunk, choice, piece in ((CHAT, CHAT_CHUNK, ChatChoice, ChatPiece), (TEXT, TEXT_CHUNK, TextChoice, TextChoice)):
        schemas[name] = {**answer, "title": name, "properties": {**answer["properties"], "choices": _list(names[choice])}}
        schemas[chunk] = _chunk(schemas[name], chunk, _list(names[piece]))
    schemas["Event"] = {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}
    return names, schemas


def _chunk(whole: Schema, title: str, choices: Schema) -> Schema:
    """A chunk has the envelope of the whole answer, and usage only where it was asked for."""
    properties = whole["properties"]
    usage = {"anyOf": [properties["usage"], {"type": "null"}]}
    required = [name for name in whole["required"] if name != "usage"]
    return {**whole, "title": title, "properties": {**properties, "choices": choices, "usage": usage}, "required": required}


def _list(name: str) -> Schema:
    return {"type": "array", "items": any_of([name])}
