"""Every route, in one place."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.core.config import ServerSettings
from penstock.gateway.auth import Auth, Authenticate
from penstock.gateway.cached import cache_routes
from penstock.gateway.counting import CountTokens
from penstock.gateway.dialects import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, TEXT
from penstock.gateway.edge import Edge
from penstock.gateway.generate import Generate
from penstock.gateway.openapi import OpenAPI
from penstock.gateway.page import Page
from penstock.gateway.routes import Models, Probes, Tokens
from penstock.pipeline import Pipeline
from penstock.trace.metrics import Metrics


def build(
    pipeline: Pipeline, settings: ServerSettings, metrics: Metrics, *, auth: Auth | None = None, page: Page | None = None
) -> Starlette:
    """The ASGI application. It owns nothing: whoever made the pipeline closes it. Without `auth` nobody is asked for a key."""
    models, tokens, probes = Models(pipeline), Tokens(pipeline, settings), Probes(pipeline, metrics)
    routes = [
        Route("/v1/chat/completions", Generate(pipeline, settings, CHAT), methods=["POST"]),
        Route("/v1/completions", Generate(pipeline, settings, TEXT), methods=["POST"]),
        Route("/v1/responses", Generate(pipeline, settings, RESPONSES), methods=["POST"]),
        Route("/v1/messages", Generate(pipeline, settings, MESSAGES), methods=["POST"]),
        Route("/v1/messages/count_tokens", CountTokens(pipeline, settings).count, methods=["POST"]),
        Route("/v1/embeddings", Generate(pipeline, settings, EMBEDDINGS), methods=["POST"]),
        Route("/v1/models", models.every),
        Route("/v1/models/{id:path}", models.one),
        Route("/tokenize", tokens.tokenize, methods=["POST"]),
        Route("/detokenize", tokens.detokenize, methods=["POST"]),
        Route("/version", probes.version),
        Route("/health", probes.health),
        Route("/ready", probes.ready),
        Route("/metrics", probes.metrics),
        Route("/openapi.json", OpenAPI().serve),
    ]
    routes += cache_routes(pipeline.cache, settings)
    routes += page.routes() if page else []
    return Application(routes, auth)


class Application(Starlette):
    """Starlette without the layers that it puts around every request: the edge catches what they would."""

    def __init__(self, routes: list[Route], auth: Auth | None) -> None:
        super().__init__(routes=routes)
        self.router.redirect_slashes = False
        self._auth = auth
        self._generate = {route.path: route.endpoint for route in routes if isinstance(route.endpoint, Generate)}

    def build_middleware_stack(self) -> ASGIApp:
        return Edge(Authenticate(self._straight, self._auth) if self._auth else self._straight)

    async def _straight(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is asked most takes no look at every route."""
        generate = self._generate.get(scope["path"]) if scope.get("method") == "POST" else None
        await (generate or self.router)(scope, receive, send)
