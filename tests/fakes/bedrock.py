"""Bedrock's Converse API over HTTP: JSON, and AWS's binary event stream."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from fakes.server import Answer, Fake, Stream, running

MODEL = "amazon.test-v1"


@asynccontextmanager
async def bedrock_fake(*answers: Answer) -> AsyncIterator[Fake]:
    fake = Fake(answers=list(answers) or [Answer(finish="end_turn")])

    async def whole(request: web.Request) -> web.StreamResponse:
        answer, body = await fake.take(request)
        return web.json_response(_whole(fake, answer.limited(_limit(body), "max_tokens"), body))

    async def streamed(request: web.Request) -> web.StreamResponse:
        answer, body = await fake.take(request)
        return await _streamed(fake, request, answer.limited(_limit(body), "max_tokens"), body)

    async with running(fake, {"POST /model/{id}/converse": whole, "POST /model/{id}/converse-stream": streamed}):
        yield fake


def _limit(body: dict[str, Any]) -> int | None:
    return body.get("inferenceConfig", {}).get("maxTokens")


def prompt_tokens(body: dict[str, Any]) -> int:
    """What this server counts: the words of the prompt."""
    return len(json.dumps([body.get("system"), body["messages"]]).split())


def _usage(body: dict[str, Any], answer: Answer, generated: int) -> dict[str, int]:
    prompt = prompt_tokens(body)
    counts = {"inputTokens": prompt - answer.cached, "outputTokens": generated, "cacheReadInputTokens": answer.cached}
    return {**counts, "totalTokens": prompt + generated}


def _deltas(answer: Answer) -> list[tuple[int, dict[str, Any] | None, dict[str, Any]]]:
    """Block, its start if it begins here, and the piece."""
    found: list[tuple[int, dict[str, Any] | None, dict[str, Any]]] = [(0, None, {"text": token}) for token in answer.tokens]
    for place, call in enumerate(answer.calls, start=1):
        start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        half = len(call.arguments) // 2
        found += [
            (place, start, {"toolUse": {"input": call.arguments[:half]}}),
            (place, None, {"toolUse": {"input": call.arguments[half:]}}),
        ]
    return found


async def _streamed(fake: Fake, request: web.Request, answer: Answer, body: dict[str, Any]) -> web.StreamResponse:
    stream = Stream(fake, request, answer, "application/vnd.amazon.eventstream")
    await stream.response.prepare(request)
    await stream.write(frame("messageStart", {"role": "assistant"}))
    for index, start, delta in _deltas(answer):
        if start is not None:
            await stream.write(frame("contentBlockStart", {"start": start, "contentBlockIndex": index}))
        await stream.token(frame("contentBlockDelta", {"delta": delta, "contentBlockIndex": index}))
    if answer.cut_after == fake.generated:
        await stream.token(b"")
    await stream.write(frame("contentBlockStop", {"contentBlockIndex": 0}))
    await stream.write(frame("messageStop", {"stopReason": answer.finish}))
    await stream.write(frame("metadata", {"usage": _usage(body, answer, fake.generated), "metrics": {"latencyMs": 1}}))
    await stream.response.write_eof()
    return stream.response


def frame(kind: str, body: dict[str, Any]) -> bytes:
    """One message of AWS's event stream."""
    headers = b"".join(
        _header(*pair) for pair in ((":message-type", "event"), (":event-type", kind), (":content-type", "application/json"))
    )
    payload = json.dumps(body).encode()
    prelude = struct.pack("!II", len(headers) + len(payload) + 16, len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack("!I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    return struct.pack("!B", len(name)) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()


def _whole(fake: Fake, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
    fake.generated = len(_deltas(answer))
    content: list[dict[str, Any]] = [{"text": "".join(answer.tokens)}] if answer.tokens else []
    content += [{"toolUse": {"toolUseId": c.id, "name": c.name, "input": json.loads(c.arguments)}} for c in answer.calls]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": answer.finish,
        "usage": _usage(body, answer, fake.generated),
        "metrics": {"latencyMs": 1},
    }
