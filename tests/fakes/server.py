"""What all fakes share: the script of an answer, a server on a free port, and what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aiohttp import web

UsageShape = Literal["none", "alone", "empty_choice", "with_content", "each", "null_until_last"]
USAGE_SHAPES: tuple[UsageShape, ...] = ("none", "alone", "empty_choice", "with_content", "each", "null_until_last")
Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]
WORDS = ("Hello", ",", " world", ".")


@dataclass(frozen=True)
class Called:
    """A tool call that the model makes."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """One answer: a token each, in order: thoughts, text, calls. Or a refusal, where `status` is not 200.

    `cut_after`, `hang_after`: tokens after which the connection drops, or nothing comes any more.
    """

    tokens: tuple[str, ...] = WORDS
    thoughts: tuple[str, ...] = ()
    calls: tuple[Called, ...] = ()
    finish: str = "stop"
    usage: UsageShape = "alone"
    cached: int = 0
    newline: str = "\n"
    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    hang_after: int | None = None
    late_end_s: float = 0.0  # after all was said, before the response ends

    def limited(self, max_tokens: int | None, length: str) -> Answer:
        """The same within `max_tokens`; `length` is how the dialect calls an answer that was cut short."""
        if max_tokens is None or max_tokens >= len(self.tokens):
            return self
        return replace(self, tokens=self.tokens[:max_tokens], finish=length)


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Fake:
    """A running server. `answers` are given in order, the last for ever. `generated` is what it counted of the last answer."""

    url: str = ""
    answers: list[Answer] = field(default_factory=lambda: [Answer()])
    asked: list[Asked] = field(default_factory=list)
    generated: int = 0  # tokens, all choices
    open: int = 0  # answers under way
    connections: set[object] = field(default_factory=set)

    def next(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def body(self) -> dict[str, Any]:
        """What it was asked last."""
        return self.asked[-1].body

    async def take(self, request: web.Request) -> tuple[Answer, dict[str, Any]]:
        body = await request.json()
        self.asked.append(Asked(request.path_qs, {name.lower(): value for name, value in request.headers.items()}, body))
        self.connections.add(request.transport)
        self.generated = 0
        answer = self.next()
        if answer.status != 200:
            text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            raise Refused(web.Response(status=answer.status, text=text, headers=answer.headers))
        return answer, body


class Refused(Exception):
    def __init__(self, response: web.Response) -> None:
        super().__init__("refused")
        self.response = response


class Stream:
    """A streamed answer being written, token by token."""

    def __init__(self, fake: Fake, request: web.Request, answer: Answer, kind: str) -> None:
        self._fake, self._request, self._answer = fake, request, answer
        self.response = web.StreamResponse(headers={"content-type": kind})

    async def token(self, data: bytes) -> None:
        """Write a token, or do what the script says at this point."""
        if self._answer.cut_after == self._fake.generated:
            assert self._request.transport is not None
            self._request.transport.close()
            raise ConnectionResetError("as scripted")
        if self._answer.hang_after == self._fake.generated:
            await asyncio.Event().wait()
        self._fake.generated += 1
        await self.write(data)

    async def write(self, data: bytes) -> None:
        await self.response.write(data)


@asynccontextmanager
async def running(fake: Fake, routes: dict[str, Endpoint], base: str = "") -> AsyncIterator[None]:
    """Serve `routes` ("POST /v1/…": endpoint) until the end of the block."""

    @web.middleware
    async def watched(request: web.Request, handler: Any) -> web.StreamResponse:
        fake.open += 1
        try:
            return await handler(request)  # type: ignore[no-any-return]
        except Refused as refused:
            return refused.response
        finally:
            fake.open -= 1

    app = web.Application(middlewares=[watched], client_max_size=2**26)
    for route, endpoint in routes.items():
        method, path = route.split(" ", 1)
        app.router.add_route(method, path, endpoint)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}{base}"
    try:
        yield
    finally:
        await runner.cleanup()
