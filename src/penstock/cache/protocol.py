"""The answer cache's protocol and the cache that holds nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from penstock.core.types import Event, Request


class Cache(Protocol):
    """Whole answers, found by everything that could change them: tenant, model, prompt, tools, sampling."""

    async def find(self, request: Request) -> tuple[Event, ...] | None:
        """The events of an earlier answer that may stand for this one, its `Finish` last; None on a miss."""

    def keep(self, request: Request, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Pass on `events`; store the answer once its `Finish` has come through."""


class NoCache:
    """Finds nothing and keeps nothing."""

    async def find(self, request: Request) -> tuple[Event, ...] | None:
        return None

    def keep(self, request: Request, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        return events
