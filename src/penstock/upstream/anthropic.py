"""Anthropic's Messages API."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.core.config import UpstreamSettings
from penstock.core.errors import UpstreamFailed
from penstock.core.types import ModelCard, Request, Route
from penstock.upstream.anthropic_answer import AnthropicReader
from penstock.upstream.anthropic_request import messages_body
from penstock.upstream.http import HTTP
from penstock.upstream.listing import Listing, cards_of
from penstock.upstream.refusal import UNREADABLE
from penstock.upstream.remote import Reader, RemoteUpstream, Sent

URL = "https://api.anthropic.com/v1"
VERSION = "2023-06-01"
COUNTED = ("system", "messages", "tools", "tool_choice")


class Count(Struct):
    input_tokens: int


class AnthropicUpstream(RemoteUpstream):
    """Counts the tokens of a prompt, too."""

    async def count_tokens(self, request: Request, route: Route) -> int:
        """As the server counts them. Raises UpstreamFailed, and what a refusal translates to."""
        card, model = self._named(route)
        body = {"model": model, **{name: value for name, value in messages_body(request, card).items() if name in COUNTED}}
        async with self._http.post("/messages/count_tokens", msgspec.json.encode(body), streams=True) as answer:
            try:
                return msgspec.json.decode(await answer.read(), type=Count).input_tokens
            except UNREADABLE as error:
                raise UpstreamFailed(f"the upstream {self._name!r} sent what is no count: {error}") from None


def anthropic_upstream(settings: UpstreamSettings) -> AnthropicUpstream:
    """An upstream that is yet to be started; at Anthropic's own address unless the config has another."""
    settings = replace(settings, url=settings.url or URL)
    headers = {"anthropic-version": VERSION} | ({"x-api-key": settings.api_key} if settings.api_key else {})
    return AnthropicUpstream(settings, Anthropic(settings), headers)


class Anthropic:
    """The dialect."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings

    async def listing(self, http: HTTP) -> Listing:
        return await cards_of(self._settings, http, "/models?limit=1000")

    async def send(self, request: Request, card: ModelCard, model: str) -> Sent:
        body = {"model": model, **messages_body(request, card), **({"stream": True} if request.streams else {})}
        return Sent("/messages", msgspec.json.encode(body), request.streams)

    def reader(self, request: Request, model: str) -> Reader:
        return AnthropicReader(self._settings.name, request)
