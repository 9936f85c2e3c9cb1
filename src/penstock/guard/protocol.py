"""The guard's protocol and the guard that lets everything pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from msgspec import Struct

from penstock.core.types import Event, Request, Verdict


class Checked(Struct, frozen=True, kw_only=True):
    """A request as it may go on (redacted, if the verdict says so), and the verdict."""

    request: Request
    verdict: Verdict = Verdict()


class Guard(Protocol):
    """Allows, redacts or refuses."""

    async def check(self, request: Request) -> Checked:
        """Judge the input. Nothing is computed for a request whose verdict is "refuse"."""

    def watch(self, request: Request, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Judge the output as it streams: pass on `events`, changed or held back where needed.

        A refusal ends the stream with `Finish(reason="content_filter")`.
        """


class AllowAll:
    """Lets everything pass."""

    async def check(self, request: Request) -> Checked:
        return Checked(request=request)

    def watch(self, request: Request, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        return events
