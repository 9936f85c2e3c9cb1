"""What an attempt costs: the protocol, and the one that knows no price."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from penstock.core.types import EngineUse, Route, Usage


class Pricing(Protocol):
    """US dollars, exact. None: the price is unknown."""

    def cost(self, route: Route, usage: Usage, use: EngineUse | None) -> Decimal | None:
        """What was used, priced. `use` is set for engines of our own and prices them; `usage` prices all others."""

    def worst(self, route: Route, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        """The most that a call with at most so many tokens can cost."""


class NoPrices:
    """Knows no price."""

    def cost(self, route: Route, usage: Usage, use: EngineUse | None) -> Decimal | None:
        return None

    def worst(self, route: Route, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        return None
