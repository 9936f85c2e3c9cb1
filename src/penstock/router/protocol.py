"""The router's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from penstock.core.types import Decision, Judge, Request, Route, unheard


class Router(Protocol):
    """Decides where a request goes."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Names that are no models, each with the model whose card and defaults hold for it."""

    async def choose(self, request: Request, judge: Judge = unheard) -> Decision:
        """The route to take, the ones to try after it in order, and why. Raises `ModelNotFound`, `Forbidden`."""

    def took(self, request: Request, route: Route) -> None:
        """`route` gave the answer: the next turn of this conversation finds its prefix there."""
