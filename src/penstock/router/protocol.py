"""The router's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from penstock.core.types import Decision, Request


class Router(Protocol):
    """Decides where a request goes."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Names that are no models, each with the model whose card and defaults hold for it."""

    async def choose(self, request: Request) -> Decision:
        """The route to take, the ones to try after it in order, and why. Raises `ModelNotFound`, `Forbidden`."""
