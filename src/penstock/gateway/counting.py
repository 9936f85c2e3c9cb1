"""`/v1/messages/count_tokens`: how many tokens a prompt has. Nothing is generated, nothing is charged."""

from __future__ import annotations

import msgspec
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from penstock.core.config import ServerSettings
from penstock.gateway.connection import JSON, read_body
from penstock.gateway.edge import exchange_of
from penstock.gateway.generate import BODY_TIMEOUT_S, context_of
from penstock.gateway.wire.decode import decode
from penstock.gateway.wire.messages import count_request
from penstock.gateway.wire.messages_answer import TokenCount
from penstock.gateway.wire.messages_fields import COUNT_NEUTRAL, CountFields
from penstock.pipeline import Pipeline


class CountTokens:
    """Counts with the tokenizer of the model that would answer. Raises InvalidRequest where that is not known here."""

    def __init__(self, pipeline: Pipeline, settings: ServerSettings) -> None:
        self._pipeline = pipeline
        self._settings = settings

    async def count(self, request: HTTPRequest) -> Response:
        exchange = exchange_of(request.scope)
        body = await read_body(request.scope, request.receive, max_bytes=self._settings.max_body_bytes, timeout_s=BODY_TIMEOUT_S)
        fields, _ = decode(body, CountFields, COUNT_NEUTRAL)
        context = context_of(self._pipeline, exchange, fields.model)
        counted = await self._pipeline.count_tokens(count_request(fields, context))
        return Response(msgspec.json.encode(TokenCount(counted)), media_type=JSON)
