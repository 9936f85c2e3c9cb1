"""The router's protocol, and what it asks of those who know prices."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

from penstock.core.types import Decision, Judge, Request, Route, Usage, unheard


class Router(Protocol):
    """Decides where a request goes."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Names that are no models, each with the model whose card and defaults hold for it."""

    async def choose(self, request: Request, judge: Judge = unheard) -> Decision:
        """The route to take, the ones to try after it in order, and why. Raises `ModelNotFound`, `Forbidden`, `InvalidRequest`."""

    def took(self, request: Request, route: Route) -> None:
        """`route` gave the answer: the next turn of this conversation finds its prefix there."""


class Costs(Protocol):
    """US dollars, exact. None: the price is unknown."""

    async def worst(self, request: Request, decision: Decision) -> Decimal | None:
        """The most that answering can cost, whichever of the decision's routes does; None also where nothing bounds the answer."""

    def expected(self, route: Route, usage: Usage) -> Decimal | None:
        """What `usage` of `route` costs."""


class NoCosts:
    """Knows no price."""

    async def worst(self, request: Request, decision: Decision) -> Decimal | None:
        return None

    def expected(self, route: Route, usage: Usage) -> Decimal | None:
        return None
