"""A server of Anthropic's Messages API: whole and streamed, with thinking, tools and cached prompts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from fakes.server import Answer, Fake, Stream, running

MODEL = "claude-test"


def prompt_tokens(body: dict[str, Any]) -> int:
    """What this server counts: the words of the prompt."""
    return len(json.dumps([body.get("system"), body["messages"]]).split())


def usage(body: dict[str, Any], answer: Answer, generated: int) -> dict[str, Any]:
    """The cached part stands beside the rest of the prompt."""
    return {
        "input_tokens": prompt_tokens(body) - answer.cached,
        "cache_read_input_tokens": answer.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": generated,
        "output_tokens_details": {"thinking_tokens": min(generated, len(answer.thoughts))},
    }


@asynccontextmanager
async def anthropic_fake(*answers: Answer) -> AsyncIterator[Fake]:
    fake = Fake(answers=list(answers) or [Answer(finish="end_turn")])

    async def listed(request: web.Request) -> web.Response:
        entry = {"id": MODEL, "type": "model", "display_name": "Test", "max_input_tokens": 200_000, "max_tokens": 64_000}
        return web.json_response({"data": [entry], "has_more": False})

    async def messages(request: web.Request) -> web.StreamResponse:
        answer, body = await fake.take(request)
        return await answered(fake, request, answer.limited(body["max_tokens"], "max_tokens"), body)

    async def count(request: web.Request) -> web.StreamResponse:
        _, body = await fake.take(request)
        return web.json_response({"input_tokens": prompt_tokens(body)})

    routes = {"GET /v1/models": listed, "POST /v1/messages": messages, "POST /v1/messages/count_tokens": count}
    async with running(fake, routes, "/v1"):
        yield fake


async def answered(fake: Fake, request: web.Request, answer: Answer, body: dict[str, Any]) -> web.StreamResponse:
    """The Messages API's way; Vertex has it, too."""
    if not body.get("stream"):
        return web.json_response(_whole(fake, answer, body))
    stream = Stream(fake, request, answer, "text/event-stream")
    await stream.response.prepare(request)

    def event(kind: str, **data: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()

    start = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "stop_reason": None}
    await stream.write(event("message_start", message={**start, "usage": usage(body, answer, 0)}) + event("ping"))
    for index, (block, deltas) in enumerate(_blocks(answer)):
        await stream.write(event("content_block_start", index=index, content_block=block))
        for delta in deltas:
            await stream.token(event("content_block_delta", index=index, delta=delta))
        await stream.write(event("content_block_stop", index=index))
    if answer.cut_after == fake.generated:
        await stream.token(b"")
    delta = {"stop_reason": answer.finish, "stop_sequence": None}
    last = {name: count for name, count in usage(body, answer, fake.generated).items() if name.startswith("output")}
    await stream.write(event("message_delta", delta=delta, usage=last) + event("message_stop"))
    await stream.response.write_eof()
    return stream.response


def _blocks(answer: Answer) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if answer.thoughts:
        thoughts = [{"type": "thinking_delta", "thinking": thought} for thought in answer.thoughts]
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, thoughts))
    if answer.tokens:
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": token} for token in answer.tokens]))
    for call in answer.calls:
        half = len(call.arguments) // 2
        parts = [call.arguments[:half], call.arguments[half:]] if call.arguments != "{}" else []
        pieces = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        blocks.append(({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, pieces))
    return blocks


def _whole(fake: Fake, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
    fake.generated = sum(len(deltas) for _, deltas in _blocks(answer))
    content: list[dict[str, Any]] = [{"type": "text", "text": "".join(answer.tokens)}] if answer.tokens else []
    if answer.thoughts:
        content.insert(0, {"type": "thinking", "thinking": "".join(answer.thoughts), "signature": "s"})
    content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)} for call in answer.calls]
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "content": content, "stop_reason": answer.finish, "stop_sequence": None,
        "usage": usage(body, answer, fake.generated),
    }  # fmt: skip
