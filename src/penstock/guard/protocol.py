"""The guard's protocol and the guard that lets everything pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from msgspec import Struct

from penstock.core.types import Event, Judge, Judgement, Request


class Checked(Struct, frozen=True, kw_only=True):
    """A request as it may go on. `refusal`: it may not. `originals` are what its placeholders stand for.

    `failed`: it is refused because it could not be judged this time, not for what it says.
    """

    request: Request
    refusal: Judgement | None = None
    failed: bool = False
    originals: Mapping[str, str] = {}


class Guard(Protocol):
    """Allows, redacts or refuses, and tells `judge` of whatever it does not simply allow."""

    async def check(self, request: Request, judge: Judge) -> Checked:
        """Judge the input: prompts and what tools returned. Nothing is computed for a request that is refused."""

    def watch(self, checked: Checked, events: AsyncGenerator[Event, None], judge: Judge) -> AsyncGenerator[Event, None]:
        """Judge the output as it streams: pass on `events`, changed or held back where needed, originals put back.

        A refusal ends the stream with `Finish(reason="content_filter")`.
        """


class AllowAll:
    """Lets everything pass."""

    async def check(self, request: Request, judge: Judge) -> Checked:
        return Checked(request=request)

    def watch(self, checked: Checked, events: AsyncGenerator[Event, None], judge: Judge) -> AsyncGenerator[Event, None]:
        return events
