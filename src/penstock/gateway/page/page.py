"""The page's routes: its files, the live feed, the request list. Where keys exist all of them need an admin's."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from penstock.core.config import PageSettings
from penstock.core.errors import InvalidRequest
from penstock.gateway.connection import JSON
from penstock.gateway.page.feed import Feed
from penstock.gateway.page.files import INDEX, SAFETY, read_files
from penstock.gateway.page.rows import UpstreamRow, details_of, open_row, row_of
from penstock.pipeline import Pipeline
from penstock.trace.window import Window
from penstock.upstream import Upstream

MOST_ROWS = 500
MOST_DIGITS = 15  # JavaScript counts no further


class Page:
    """Everything that the browser asks for. `window` observes the trace and the engines."""

    def __init__(self, pipeline: Pipeline, window: Window, settings: PageSettings) -> None:
        self._pipeline = pipeline
        self._window = window
        self._files = read_files()
        self._feed = Feed(window, settings, pipeline.health)

    def routes(self) -> list[Route]:
        """For the application to hold."""
        return [
            Route("/", self._index, methods=["GET"]),
            Route("/static/{name:path}", self._file, methods=["GET"]),
            Route("/admin/live", self._feed, methods=["GET"]),
            Route("/admin/requests", self._requests, methods=["GET"]),
            Route("/admin/requests/{number:int}", self._request, methods=["GET"]),
            Route("/admin/engines", self._engines, methods=["GET"]),
        ]

    def stop(self) -> None:
        """End the feeds within a second: a server that ends waits for what runs. May be called from a signal."""
        self._feed.stop()

    async def _index(self, request: HTTPRequest) -> Response:
        return self._files[INDEX].answer(request)

    async def _file(self, request: HTTPRequest) -> Response:
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        return file.answer(request)

    async def _requests(self, request: HTTPRequest) -> Response:
        """`before`, `after` and `limit` go by number, the newest first. `open` are those under way."""
        limit, before, after = (_number(request, name) for name in ("limit", "before", "after"))
        limit = min(limit or 100, MOST_ROWS)
        kept = self._window.requests(before=before, after=after or 0, limit=limit)
        under_way = [] if before else [open_row(known) for known in self._window.under_way(limit)]
        return _json({"open": under_way, "data": [row_of(each) for each in kept], "total": self._window.total})

    async def _request(self, request: HTTPRequest) -> Response:
        kept = self._window.request(request.path_params["number"])
        if kept is None:
            raise HTTPException(404)
        return _json(details_of(kept))

    async def _engines(self, request: HTTPRequest) -> Response:
        upstreams = self._pipeline.dispatch.upstreams
        return _json({"data": [_upstream_row(name, upstream, self._window.models) for name, upstream in upstreams.items()]})


def _upstream_row(name: str, upstream: Upstream, own: Collection[str]) -> UpstreamRow:
    cards = upstream.models()
    return UpstreamRow(
        name=name,
        health=upstream.health(),
        models=tuple(card.id for card in cards),
        embeds=tuple(card.id for card in cards if card.embeds),
        own=name in own,
    )


def _number(request: HTTPRequest, name: str) -> int | None:
    """A counting number of the query."""
    given = request.query_params.get(name)
    if given is None:
        return None
    if not given.isdecimal() or not given.isascii() or len(given) > MOST_DIGITS:
        raise InvalidRequest(f"{name} is {given[:20]!r}", hint="it counts requests, such as 100", param=name)
    return int(given)


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), headers={**SAFETY, "cache-control": "no-store"}, media_type=JSON)
