"""`/admin/cache`: what the answer cache holds, and forgetting some of it. Where keys exist both need an admin's."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from penstock.cache import Cache, Clearable
from penstock.cache.store import Part
from penstock.core.config import ServerSettings
from penstock.gateway.connection import JSON, read_body
from penstock.gateway.generate import BODY_TIMEOUT_S
from penstock.gateway.wire.decode import decode


class ClearFields(Struct, forbid_unknown_fields=True):
    """The body of a clearing: only this tenant's answers, only this model's; neither: all."""

    tenant: str | None = None
    model: str | None = None


def cache_routes(cache: Cache, settings: ServerSettings) -> list[Route]:
    """For the application to hold; none where the cache holds nothing."""
    if not isinstance(cache, Clearable):
        return []
    answers = CachedAnswers(cache, settings)
    return [Route("/admin/cache", answers.held, methods=["GET"]), Route("/admin/cache/clear", answers.clear, methods=["POST"])]


class CachedAnswers:
    """The routes over one cache."""

    def __init__(self, cache: Clearable, settings: ServerSettings) -> None:
        self._cache = cache
        self._settings = settings

    async def held(self, request: HTTPRequest) -> Response:
        held, decided = await self._cache.held()
        return _json({"held": held, "decided": decided})

    async def clear(self, request: HTTPRequest) -> Response:
        body = await read_body(request.scope, request.receive, max_bytes=self._settings.max_body_bytes, timeout_s=BODY_TIMEOUT_S)
        fields, _ = decode(body, ClearFields, {})
        return _json({"cleared": await self._cache.clear(Part(tenant=fields.tenant, model=fields.model))})


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), headers={"cache-control": "no-store"}, media_type=JSON)
