"""Ask an upstream as the pipeline would, and look at what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from msgspec.structs import replace
from serving import tab

from penstock.core.config import UpstreamSettings
from penstock.core.types import Delta, Event, Finish, Message, Request, Route
from penstock.trace import Tab
from penstock.upstream import Upstream
from penstock.upstream.make import make_upstream


@asynccontextmanager
async def upstream_at(url: str, **settings: object) -> AsyncIterator[Upstream]:
    upstream = await make_upstream(UpstreamSettings(name="there", url=url, **settings))  # type: ignore[arg-type]
    try:
        yield upstream
    finally:
        await upstream.close()


def chat(text: str = "Say something short", **fields: object) -> Request:
    """A request of one turn, unless `messages` says otherwise."""
    messages = fields.pop("messages", (Message(role="user", content=text),))
    return Request(id="r", model="", messages=messages, add_special_tokens=False, **fields)  # type: ignore[arg-type]


async def ask(upstream: Upstream, request: Request, noted: Tab | None = None) -> list[Event]:
    """All events, by the upstream's first model."""
    route = Route(upstream="there", model=upstream.models()[0].id)
    async with aclosing(upstream.stream(request, route, noted or tab())) as events:
        return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.index == 0)


def finish_of(events: list[Event]) -> Finish:
    assert isinstance(events[-1], Finish)
    return events[-1]


def called(events: list[Event]) -> dict[int, tuple[str | None, str | None, str]]:
    """The tool calls, put together."""
    calls: dict[int, tuple[str | None, str | None, str]] = {}
    for event in events:
        for call in event.tool_calls if isinstance(event, Delta) else ():
            id, name, arguments = calls.get(call.index, (None, None, ""))
            calls[call.index] = (id or call.id, name or call.name, arguments + call.arguments)
    return calls


def replaced(request: Request, **changes: object) -> Request:
    return replace(request, **changes)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)
