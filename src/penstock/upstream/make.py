"""From the config to an upstream that runs."""

from __future__ import annotations

from typing import Protocol

from penstock.core.config import UpstreamSettings
from penstock.core.errors import ConfigError
from penstock.upstream.protocol import Upstream


class Startable(Upstream, Protocol):
    """An upstream as its constructor leaves it."""

    async def start(self) -> None:
        """Learn the models."""


async def make_upstream(settings: UpstreamSettings) -> Upstream:
    """Connect to what `settings` describes and learn its models. Close it when done.

    Raises ConfigError, LoadError where its models cannot be learnt, MissingExtra.
    """
    upstream = _made(settings)
    try:
        await upstream.start()
    except BaseException:
        await upstream.close()
        raise
    return upstream


def _made(settings: UpstreamSettings) -> Startable:
    """Each kind is imported when it is asked for."""
    if settings.kind == "openai" or settings.url:
        _check_url(settings)
    _check_headers(settings)
    if settings.kind == "anthropic":
        from penstock.upstream.anthropic import anthropic_upstream

        return anthropic_upstream(settings)
    if settings.kind == "bedrock":
        from penstock.upstream.bedrock import BedrockUpstream

        return BedrockUpstream(settings)
    if settings.kind == "vertex":
        from penstock.upstream.vertex import vertex_upstream

        return vertex_upstream(settings)
    from penstock.upstream.openai import openai_upstream

    return openai_upstream(settings)


def _check_url(settings: UpstreamSettings) -> None:
    if not settings.url.startswith(("http://", "https://")):
        hint = 'write url = "http://host:port/v1"'
        raise ConfigError(f"the upstream {settings.name!r} has the url {settings.url!r}", hint=hint)


def _check_headers(settings: UpstreamSettings) -> None:
    for name, value in {"api_key": settings.api_key, **settings.headers}.items():
        if not name or not f"{name}{value}".isprintable():  # a key that was read from a file often ends with its line
            message = f"the upstream {settings.name!r} has a line break or another control character in {name!r}"
            raise ConfigError(message, hint="it is sent as a header: write it on one line")
