"""The small routes: models, tokens, version and probes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from penstock import __version__
from penstock.core.config import ServerSettings
from penstock.core.errors import ModelNotFound, closest
from penstock.core.types import ModelCard
from penstock.gateway.connection import JSON, read_body
from penstock.gateway.edge import exchange_of
from penstock.gateway.generate import BODY_TIMEOUT_S, known_model
from penstock.gateway.wire.decode import decode
from penstock.gateway.wire.fields import DETOKENIZE_NEUTRAL, TOKENIZE_NEUTRAL
from penstock.gateway.wire.tokens import Detokenized, DetokenizeFields, Tokenized, TokenizeFields, detokenize_request, tokenize_request
from penstock.pipeline import Pipeline
from penstock.trace.metrics import CONTENT_TYPE, Metrics

NOT_READY_RETRY_S = "5"


class ModelBody(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as OpenAI lists it, with vLLM's `root` and `max_model_len`."""

    id: str
    kind: str = msgspec.field(name="object", default="model")
    created: int
    owned_by: str
    root: str | None
    max_model_len: int | None


class ModelList(msgspec.Struct, frozen=True):
    data: tuple[ModelBody, ...]
    kind: str = msgspec.field(name="object", default="list")


class Models:
    """`/v1/models` and `/v1/models/{id}`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def every(self, request: HTTPRequest) -> Response:
        return _json(ModelList(tuple(map(_model_body, self._seen_by(request)))))

    async def one(self, request: HTTPRequest) -> Response:
        return _json(_model_body(_card(self._seen_by(request), request.path_params["id"])))

    def _seen_by(self, request: HTTPRequest) -> list[ModelCard]:
        """The models that the key may ask for."""
        scope = exchange_of(request.scope).principal.models
        return [card for card in self._pipeline.models() if scope is None or card.id in scope]


class Tokens:
    """`/tokenize` and `/detokenize`."""

    def __init__(self, pipeline: Pipeline, settings: ServerSettings) -> None:
        self._pipeline = pipeline
        self._settings = settings

    async def tokenize(self, request: HTTPRequest) -> Response:
        fields, _ = decode(await self._body(request), TokenizeFields, TOKENIZE_NEUTRAL)
        model = known_model(self._pipeline, fields.model)
        card = _card(self._pipeline.models(), model)
        exchange = exchange_of(request.scope)
        asked = replace(tokenize_request(fields, exchange.request_id, model), principal=exchange.principal)
        ids = (await self._pipeline.tokenize(asked)).token_ids
        names = await self._pipeline.token_strings(asked, ids) if fields.return_token_strs else None
        return _json(Tokenized(len(ids), card.max_model_len, ids, names))

    async def detokenize(self, request: HTTPRequest) -> Response:
        fields, _ = decode(await self._body(request), DetokenizeFields, DETOKENIZE_NEUTRAL)
        model = known_model(self._pipeline, fields.model)
        exchange = exchange_of(request.scope)
        asked = replace(detokenize_request(fields, exchange.request_id, model), principal=exchange.principal)
        return _json(Detokenized(await self._pipeline.detokenize(asked)))

    async def _body(self, request: HTTPRequest) -> bytes:
        return await read_body(request.scope, request.receive, max_bytes=self._settings.max_body_bytes, timeout_s=BODY_TIMEOUT_S)


class Probes:
    """Alive, ready, measured: what machines ask."""

    def __init__(self, pipeline: Pipeline, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._metrics = metrics

    async def health(self, request: HTTPRequest) -> Response:
        """Alive: the event loop turns."""
        return _json({"status": "alive"})

    async def ready(self, request: HTTPRequest) -> Response:
        """Forward progress: 503 with the reason while requests would not be answered."""
        health = self._pipeline.health()
        if health.state == "ready":
            return _json(health)
        return _json(health, status=503, headers={"retry-after": NOT_READY_RETRY_S})

    async def version(self, request: HTTPRequest) -> Response:
        return _json({"version": __version__})

    async def metrics(self, request: HTTPRequest) -> Response:
        text = await asyncio.to_thread(self._metrics.render)
        return Response(text, headers={"content-type": CONTENT_TYPE})


def _json(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status_code=status, headers=headers, media_type=JSON)


def _model_body(card: ModelCard) -> ModelBody:
    return ModelBody(id=card.id, created=card.created, owned_by=card.owned_by, root=card.root, max_model_len=card.max_model_len)


def _card(served: Iterable[ModelCard], model: str) -> ModelCard:
    """Raises ModelNotFound, with the closest name."""
    cards = {card.id: card for card in served}
    if model not in cards:
        near = closest(model, cards)
        raise ModelNotFound(f"the model {model!r} does not exist", hint=f"did you mean {near!r}?" if near else None, param="model")
    return cards[model]
