"""An OpenAI-compatible server: models, chat, text completions, embeddings; usage in every shape seen in the wild."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from fakes.server import Answer, Fake, Stream, running

MODEL = "vendor/model"


def prompt_tokens(body: dict[str, Any]) -> int:
    """What this server counts: the words of the prompt."""
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        return len(prompt)
    texts = [prompt] if prompt is not None else [message["content"] or "" for message in body["messages"]]
    return sum(len(text.split()) for text in texts)


@asynccontextmanager
async def openai_fake(*answers: Answer, owned_by: str = "", models: tuple[str, ...] = (MODEL,), base: str = "/v1") -> AsyncIterator[Fake]:
    fake = Fake(answers=list(answers) or [Answer()])

    async def listed(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model", "owned_by": owned_by} for name in models]})

    async def chat(request: web.Request) -> web.StreamResponse:
        answer, body = await fake.take(request)
        return await _answer(fake, request, answer.limited(_limit(body), "length"), _Dialect(body, is_chat=True))

    async def text(request: web.Request) -> web.StreamResponse:
        answer, body = await fake.take(request)
        return await _answer(fake, request, answer.limited(_limit(body), "length"), _Dialect(body, is_chat=False))

    async def embeddings(request: web.Request) -> web.Response:
        answer, body = await fake.take(request)
        size = body.get("dimensions", 3)
        data = [{"object": "embedding", "index": i, "embedding": [float(i)] * size} for i in range(len(body["input"]))]
        words = sum(len(item) if isinstance(item, list) else len(item.split()) for item in body["input"])
        usage = {} if answer.usage == "none" else {"usage": {"prompt_tokens": words, "total_tokens": words}}
        return web.json_response({"object": "list", "data": data[::-1], "model": body["model"], **usage})

    routes = {
        f"GET {base}/models": listed,
        f"POST {base}/chat/completions": chat,
        f"POST {base}/completions": text,
        f"POST {base}/embeddings": embeddings,
    }
    async with running(fake, routes, base):
        yield fake


class _Dialect:
    """How a request is answered: chat or text."""

    def __init__(self, body: dict[str, Any], *, is_chat: bool) -> None:
        self.body = body
        self.is_chat = is_chat
        self.n = body.get("n", 1)
        options = body.get("stream_options") or {}
        self.wants_usage = options.get("include_usage", False)
        self.wants_each = options.get("continuous_usage_stats", False)

    def logprobs(self, token: str) -> dict[str, Any] | None:
        asked = self.body.get("logprobs")
        if asked is None or asked is False:
            return None
        tops = [f"{token}{rank}" for rank in range(self.body.get("top_logprobs", 0) if self.is_chat else asked)]
        if self.is_chat:
            top = [{"token": name, "logprob": -0.5, "bytes": None} for name in tops]
            return {"content": [{"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": top}]}
        return {"tokens": [token], "token_logprobs": [-0.5], "top_logprobs": [dict.fromkeys(tops, -0.5)], "text_offset": [0]}

    def piece(self, index: int, finish: str | None = None, **delta: Any) -> dict[str, Any]:
        content = delta.get("content")
        logprobs = self.logprobs(content) if content else None
        if not self.is_chat:
            return {"index": index, "text": content or "", "finish_reason": finish, "logprobs": logprobs}
        return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}

    def usage(self, answer: Answer, generated: int) -> dict[str, Any]:
        prompt = prompt_tokens(self.body)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": answer.cached},
            "completion_tokens_details": {"reasoning_tokens": min(generated, len(answer.thoughts) * self.n)},
        }


def _limit(body: dict[str, Any]) -> int | None:
    return body.get("max_completion_tokens", body.get("max_tokens"))


async def _answer(fake: Fake, request: web.Request, answer: Answer, dialect: _Dialect) -> web.StreamResponse:
    if not dialect.body.get("stream"):
        return web.json_response(_whole(fake, answer, dialect))
    stream = Stream(fake, request, answer, "text/event-stream; charset=utf-8")
    await stream.response.prepare(request)
    newline = answer.newline.encode()

    def event(choices: list[Any], **more: Any) -> bytes:
        chunk = {"id": "1", "object": "chunk", "created": 1, "model": MODEL, "choices": choices, **more}
        return b"data: " + json.dumps(chunk).encode() + newline * 2

    each = answer.usage == "each" or dialect.wants_each
    null = {"usage": None} if answer.usage == "null_until_last" else {}
    if dialect.is_chat:
        await stream.write(b": a comment" + newline * 2)
        await stream.write(event([dialect.piece(index, role="assistant", content="") for index in range(dialect.n)]))
    for delta in _deltas(answer):
        for index in range(dialect.n):
            usage = {"usage": dialect.usage(answer, fake.generated + 1)} if each else null
            await stream.token(event([dialect.piece(index, **delta)], **usage))
    if answer.cut_after == fake.generated:
        await stream.token(b"")
    usage = {"usage": dialect.usage(answer, fake.generated)}
    with_content = answer.usage == "with_content"
    for index in range(dialect.n):
        await stream.write(event([dialect.piece(index, finish=answer.finish)], **(usage if with_content else {})))
    if answer.usage in ("alone", "null_until_last") and dialect.wants_usage:
        await stream.write(event([], **usage))
    if answer.usage == "empty_choice":
        await stream.write(event([{}], **usage))
    await stream.write(b"data: [DONE]" + newline * 2)
    await asyncio.sleep(answer.late_end_s)
    await stream.response.write_eof()
    return stream.response


def _deltas(answer: Answer) -> Iterator[dict[str, Any]]:
    """One for each token that the server counts."""
    for thought in answer.thoughts:
        yield {"reasoning_content": thought}
    for token in answer.tokens:
        yield {"content": token}
    for index, call in enumerate(answer.calls):
        half = len(call.arguments) // 2
        head = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments[:half]}}
        yield {"tool_calls": [head]}
        yield {"tool_calls": [{"index": index, "function": {"arguments": call.arguments[half:]}}]}


def _whole(fake: Fake, answer: Answer, dialect: _Dialect) -> dict[str, Any]:
    fake.generated = (len(answer.tokens) + len(answer.thoughts) + 2 * len(answer.calls)) * dialect.n
    message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.tokens)}
    if answer.thoughts:
        message["reasoning_content"] = "".join(answer.thoughts)
    if answer.calls:
        function = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in answer.calls]
        message["tool_calls"] = function
    logprobs = None
    if dialect.logprobs("") is not None:
        found = [dialect.logprobs(token) or {} for token in answer.tokens]
        logprobs = {name: [item for one in found for item in one[name]] for name in found[0]}
    choices = []
    for index in range(dialect.n):
        said = {"message": message} if dialect.is_chat else {"text": "".join(answer.tokens)}
        choices.append({"index": index, "finish_reason": answer.finish, "logprobs": logprobs, **said})
    usage = {} if answer.usage == "none" else {"usage": dialect.usage(answer, fake.generated)}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": choices, **usage}
