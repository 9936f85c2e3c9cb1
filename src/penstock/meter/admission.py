"""Whether a key may go on: the protocol, and the one that lets everybody."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from penstock.core.types import Principal


class Hold(Protocol):
    """What one admitted request holds of its key's limits. Settled exactly once, whatever happens.

    `warning`: a limit that only warns was in the way of what was reserved.
    """

    warning: str | None

    async def reserve(self, tokens: int, cost_usd: Decimal | None) -> None:
        """Reserve the worst case before an upstream is called, all of it or nothing.

        `tokens` counts prompt and completion; `cost_usd` is None where the price is unknown.
        Raises RateLimited, BudgetExceeded, PriceUnknown, LimitsDown.
        """

    async def settle(self, tokens: int, cost_usd: Decimal | None) -> None:
        """Give back what was reserved and count what was used. Raises nothing."""


class Admission(Protocol):
    """Keeps keys within their limits."""

    async def admit(self, principal: Principal, request_id: str) -> Hold:
        """Count the request and take a concurrent place. Raises RateLimited, LimitsDown."""

    def needs_worst_case(self, principal: Principal) -> bool:
        """Whether tokens or money of this key are limited, so that `reserve` needs to be called."""

    async def close(self) -> None:
        """Free connections."""


class Unlimited:
    """Admits everybody to everything. It is its own hold."""

    warning: str | None = None

    async def admit(self, principal: Principal, request_id: str) -> Hold:
        return self

    def needs_worst_case(self, principal: Principal) -> bool:
        return False

    async def reserve(self, tokens: int, cost_usd: Decimal | None) -> None:
        return None

    async def settle(self, tokens: int, cost_usd: Decimal | None) -> None:
        return None

    async def close(self) -> None:
        return None
