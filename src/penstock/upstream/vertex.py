"""Google Vertex AI (extra `vertex`): Gemini models, and Claude models through Anthropic's API behind it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from penstock.core.config import UpstreamSettings
from penstock.core.errors import ConfigError, UpstreamFailed, missing_extra
from penstock.core.types import ModelCard, Request
from penstock.upstream.anthropic_answer import AnthropicReader
from penstock.upstream.anthropic_request import messages_body
from penstock.upstream.http import HTTP
from penstock.upstream.listing import Listing, listing, names_of
from penstock.upstream.remote import Reader, RemoteUpstream, Sent
from penstock.upstream.vertex_wire import GeminiReader, generate_body

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ANTHROPIC_VERSION = "vertex-2023-10-16"


class Credentials(Protocol):
    """As google-auth's are."""

    @property
    def token(self) -> str | None:
        """What goes into the header."""

    @property
    def valid(self) -> bool:
        """Whether it may still be used."""

    def refresh(self, request: Any) -> None:
        """Get a new token. Blocks."""


def vertex_upstream(settings: UpstreamSettings, credentials: Credentials | None = None) -> RemoteUpstream:
    """An upstream that is yet to be started. `api_key` is a key of Vertex's; without one Google's application default
    credentials hold. Raises ConfigError, MissingExtra."""
    region = settings.region or "global"
    host = "aiplatform.googleapis.com" if region == "global" else f"{region}-aiplatform.googleapis.com"
    if not settings.project and not settings.api_key:
        raise ConfigError(f"the upstream {settings.name!r} has no project", hint='write project = "my-project"')
    place = f"/projects/{settings.project}/locations/{region}" if settings.project else ""
    settings = replace(settings, url=(settings.url or f"https://{host}/v1") + place)
    if credentials is None and not settings.api_key:
        credentials = _default_credentials(settings.name)
    headers = {"x-goog-api-key": settings.api_key} if settings.api_key else {}
    return RemoteUpstream(settings, Vertex(settings, credentials), headers)


class Vertex:
    """The dialect: Gemini's, or Anthropic's for models whose name begins with "claude"."""

    def __init__(self, settings: UpstreamSettings, credentials: Credentials | None) -> None:
        self._settings = settings
        self._credentials = credentials
        self._refreshing = asyncio.Lock()
        self._names: dict[str, str] = {}

    async def listing(self, http: HTTP) -> Listing:
        """What the config names: what a project may call, no list says. Raises ConfigError."""
        self._names = names_of(self._settings)
        if not self._names:
            raise ConfigError(f"the upstream {self._settings.name!r} names no models", hint='write models = ["gemini-2.5-flash"]')
        return listing(self._settings, self._names)

    async def send(self, request: Request, card: ModelCard, model: str) -> Sent:
        headers = {} if self._credentials is None else {"authorization": f"Bearer {await self._token(self._credentials)}"}
        if model.startswith("claude"):
            body = {"anthropic_version": ANTHROPIC_VERSION, **messages_body(request, card), "stream": request.streams}
            path = f"/publishers/anthropic/models/{model}:{'streamRawPredict' if request.streams else 'rawPredict'}"
        else:
            body = generate_body(request, card)
            path = f"/publishers/google/models/{model}:{'streamGenerateContent?alt=sse' if request.streams else 'generateContent'}"
        return Sent(path, msgspec.json.encode(body), request.streams, headers)

    def reader(self, request: Request, model: str) -> Reader:
        return (AnthropicReader if model.startswith("claude") else GeminiReader)(self._settings.name, request)

    async def _token(self, credentials: Credentials) -> str:
        """A token that is valid still; one refresh serves all who wait."""
        async with self._refreshing:
            if not credentials.valid:
                try:
                    await asyncio.to_thread(credentials.refresh, _transport())
                except Exception as error:
                    what = f"the upstream {self._settings.name!r} gets no token from Google: {type(error).__name__}"
                    raise UpstreamFailed(what, hint="tell whoever runs this server") from error
        return credentials.token or ""


def _transport() -> Any:
    from google.auth.transport.requests import Request as Transport

    return Transport()


def _default_credentials(name: str) -> Credentials:
    try:
        import google.auth
        import google.auth.exceptions
        import google.auth.transport.requests
    except ImportError:
        raise missing_extra(f"the upstream {name!r} of kind vertex", "vertex") from None
    try:
        credentials: Credentials
        credentials, _ = google.auth.default(scopes=[SCOPE])
    except google.auth.exceptions.DefaultCredentialsError as error:
        hint = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
        raise ConfigError(f"the upstream {name!r} has no Google credentials: {error}", hint=hint) from None
    return credentials
