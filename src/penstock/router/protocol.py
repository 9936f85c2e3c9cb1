"""The router's protocol."""

from __future__ import annotations

from typing import Protocol

from penstock.core.types import Decision, Request


class Router(Protocol):
    """Decides where a request goes."""

    async def choose(self, request: Request) -> Decision:
        """The route to take, the ones to try after it in order, and why. Raises `ModelNotFound`."""
