"""Every route, in one place."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from penstock.core.config import ServerSettings
from penstock.core.types import Failure
from penstock.gateway.connection import JSON
from penstock.gateway.edge import Edge
from penstock.gateway.generate import CHAT, TEXT, Generate
from penstock.gateway.routes import Models, Probes, Tokens
from penstock.gateway.wire.errors import error_body
from penstock.pipeline import Pipeline
from penstock.trace.metrics import Metrics


def build(pipeline: Pipeline, settings: ServerSettings, metrics: Metrics) -> Starlette:
    """The ASGI application. It owns nothing: whoever made the pipeline closes it."""
    models, tokens, probes = Models(pipeline), Tokens(pipeline, settings), Probes(pipeline, metrics)
    routes = [
        Route("/v1/chat/completions", Generate(pipeline, settings, CHAT), methods=["POST"]),
        Route("/v1/completions", Generate(pipeline, settings, TEXT), methods=["POST"]),
        Route("/v1/models", models.every),
        Route("/v1/models/{id:path}", models.one),
        Route("/tokenize", tokens.tokenize, methods=["POST"]),
        Route("/detokenize", tokens.detokenize, methods=["POST"]),
        Route("/version", probes.version),
        Route("/health", probes.health),
        Route("/ready", probes.ready),
        Route("/metrics", probes.metrics),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Edge)], exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False
    return app


async def _no_route(request: HTTPRequest, error: Exception) -> Response:
    """404 and 405 in OpenAI's shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code, what = ("method_not_allowed", "does not go with") if status == 405 else ("not_found", "is unknown, asked by")
    failure = Failure(status=status, code=code, message=f"{request.url.path[:200]} {what} {request.method}")
    headers = getattr(error, "headers", None)
    return Response(error_body(failure), status_code=status, headers=headers, media_type=JSON)
