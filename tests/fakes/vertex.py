"""Vertex AI: Gemini's generateContent, whole and streamed, and Claude's raw predictions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from fakes.anthropic import answered
from fakes.server import Answer, Fake, Stream, running

MODEL = "gemini-test"
PLACE = "/v1/projects/p/locations/global/publishers"


@asynccontextmanager
async def vertex_fake(*answers: Answer) -> AsyncIterator[Fake]:
    fake = Fake(answers=list(answers) or [Answer(finish="STOP")])

    async def whole(request: web.Request) -> web.StreamResponse:
        answer, body = await fake.take(request)
        answer = answer.limited(_limit(body), "MAX_TOKENS")
        fake.generated = len(_parts(answer)) * _count(body)
        return web.json_response(_chunk(answer, body, fake.generated, _parts(answer), answer.finish))

    async def streamed(request: web.Request) -> web.StreamResponse:
        answer, body = await fake.take(request)
        return await _streamed(fake, request, answer.limited(_limit(body), "MAX_TOKENS"), body)

    async def claude(request: web.Request) -> web.StreamResponse:
        answer, body = await fake.take(request)
        return await answered(fake, request, answer, body)

    routes = {
        f"POST {PLACE}/google/models/{{id}}:generateContent": whole,
        f"POST {PLACE}/google/models/{{id}}:streamGenerateContent": streamed,
        f"POST {PLACE}/anthropic/models/{{id}}:rawPredict": claude,
        f"POST {PLACE}/anthropic/models/{{id}}:streamRawPredict": claude,
    }
    async with running(fake, routes, "/v1"):
        yield fake


def _limit(body: dict[str, Any]) -> int | None:
    return body.get("generationConfig", {}).get("maxOutputTokens")


def _count(body: dict[str, Any]) -> int:
    return int(body.get("generationConfig", {}).get("candidateCount", 1))


def prompt_tokens(body: dict[str, Any]) -> int:
    """What this server counts: the words of the prompt."""
    return len(json.dumps([body.get("systemInstruction"), body["contents"]]).split())


def _parts(answer: Answer) -> list[dict[str, Any]]:
    thoughts = [{"text": thought, "thought": True} for thought in answer.thoughts]
    calls = [{"functionCall": {"name": call.name, "args": json.loads(call.arguments)}} for call in answer.calls]
    return [*thoughts, *({"text": token} for token in answer.tokens), *calls]


def _chunk(answer: Answer, body: dict[str, Any], generated: int, parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    thoughts = min(generated, len(answer.thoughts) * _count(body))
    usage = {
        "promptTokenCount": prompt_tokens(body),
        "candidatesTokenCount": generated - thoughts,
        "thoughtsTokenCount": thoughts,
        "cachedContentTokenCount": answer.cached,
        "totalTokenCount": prompt_tokens(body) + generated,
    }
    content = {"content": {"role": "model", "parts": parts}, **({"finishReason": finish} if finish else {})}
    return {"candidates": [{"index": index, **content} for index in range(_count(body))], "usageMetadata": usage, "modelVersion": MODEL}


async def _streamed(fake: Fake, request: web.Request, answer: Answer, body: dict[str, Any]) -> web.StreamResponse:
    stream = Stream(fake, request, answer, "text/event-stream")
    await stream.response.prepare(request)
    parts = _parts(answer)
    for part in parts:
        n = _count(body)
        chunk = _chunk(answer, body, fake.generated + n, [part], answer.finish if part is parts[-1] else None)
        await stream.token(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n")
        fake.generated += n - 1
    await stream.response.write_eof()
    return stream.response
