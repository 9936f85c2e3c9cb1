"""The upstream that is another server: one loop over its answers, whatever dialect it speaks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Protocol

from msgspec import Struct

from penstock.core.config import UpstreamSettings
from penstock.core.errors import ModelNotFound, PenstockError
from penstock.core.types import Delta, Event, Finish, Health, ModelCard, Request, Route, Usage, Vectors
from penstock.trace import Tab
from penstock.upstream.http import HTTP, Answer
from penstock.upstream.listing import Listing


class Sent(Struct, frozen=True):
    """A request as HTTP. `streams`: the answer comes as server-sent events, unless the server thinks otherwise."""

    path: str
    body: bytes
    streams: bool
    headers: Mapping[str, str] = {}


class Reader(Protocol):
    """One answer being read. `usage` is right at any time."""

    done: bool  # the server has said that this was all

    @property
    def started(self) -> bool:
        """Whether anything has come that costs."""

    def read(self, events: Iterable[bytes]) -> list[Delta | Vectors]:
        """What these events, or this one whole answer, bring. Raises UpstreamFailed for nonsense, and what the server says went wrong."""

    def end(self) -> Iterator[Delta | Finish]:
        """The end of the answer, once all has come. Raises UpstreamFailed where it was cut off."""

    def usage(self) -> Usage:
        """What the server said, else what was delivered."""


class Dialect(Protocol):
    """How one kind of server is spoken to."""

    async def listing(self, http: HTTP) -> Listing:
        """The models that it serves. Raises LoadError."""

    async def send(self, request: Request, card: ModelCard, model: str) -> Sent:
        """`request` for what the server calls `model`. Raises Unsupported, InvalidRequest."""

    def reader(self, request: Request, model: str) -> Reader:
        """For the answer to `request` by what the server calls `model`."""


class RemoteUpstream:
    """Must be started before it is asked, and closed."""

    def __init__(self, settings: UpstreamSettings, dialect: Dialect, headers: Mapping[str, str]) -> None:
        self._name = settings.name
        self._dialect = dialect
        self._http = HTTP(settings, headers)
        self._names: Mapping[str, str] = {}
        self._cards: dict[str, ModelCard] = {}

    async def start(self) -> None:
        """Learn the models. Raises LoadError where the server cannot say and the config names none."""
        listing = await self._dialect.listing(self._http)
        self._names = listing.names
        self._cards = {card.id: card for card in listing.cards}

    def models(self) -> tuple[ModelCard, ...]:
        return tuple(self._cards.values())

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        """Usage is what the server says, or else counted from what came. Where the answer may come whole it is asked for whole:
        then nothing is known of it before its end."""
        card, model = self._named(route)
        sent = await self._dialect.send(request, card, model)
        reader = self._dialect.reader(request, model)
        refused = False
        try:
            async with self._http.post(sent.path, sent.body, streams=sent.streams, headers=sent.headers) as answer:
                async with aclosing(_reads(answer, streams=sent.streams)) as reads:
                    async for events in reads:
                        for event in reader.read(events):
                            if tab.first_s is None:
                                tab.first_s = time.monotonic()
                            yield event
                        if reader.done:
                            answer.complete = True
                            break
                for last in reader.end():
                    tab.usage = reader.usage()
                    yield last
        except PenstockError:
            refused = not reader.started  # nothing was used
            raise
        finally:
            tab.usage = None if refused else reader.usage()

    def _named(self, route: Route) -> tuple[ModelCard, str]:
        """The model of `route`, and what the server calls it. Raises ModelNotFound."""
        card = self._cards.get(route.model)
        if card is None:
            raise ModelNotFound(f"the upstream {self._name!r} has no model {route.model!r}")
        return card, self._names[route.model]

    def health(self) -> Health:
        """Ready until closed: a server that is down is found out, and gone around, by the requests."""
        return Health(state="stopped" if self._http.closed else "ready")

    async def close(self) -> None:
        await self._http.close()


async def _reads(answer: Answer, *, streams: bool) -> AsyncGenerator[list[bytes], None]:
    """What comes, as it comes; an answer that is not streamed, though it was to be, is one event."""
    if streams and answer.response.content_type == "text/event-stream":
        async with aclosing(answer.events()) as events:
            async for together in events:
                yield together
    else:
        yield [await answer.read()]
