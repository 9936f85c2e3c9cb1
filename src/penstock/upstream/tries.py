"""Which route is tried next for one request, and after which pause."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from penstock.core.config import DispatchSettings
from penstock.core.errors import UpstreamFailed
from penstock.core.types import Failure, Route
from penstock.upstream.breaker import Breaker


class Tries:
    """Each route once, in order; then again those for which a repeat may help, after a pause that grows.

    Pauses are drawn evenly from zero to their bound ("full jitter"), so that many requests that failed together do not come
    back together. A route that says that it is full, or that its engine died, is not asked again: its word goes to the client.
    """

    __slots__ = ("_again", "_breaker", "_clock", "_least_s", "_left", "_queue", "_rng", "_round", "_settings")

    def __init__(
        self,
        routes: Sequence[Route],
        breaker: Callable[[Route], Breaker],
        settings: DispatchSettings,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._queue = list(routes)
        self._again: list[Route] = []
        self._left = settings.attempts
        self._least_s = 0.0
        self._round = 0
        self._breaker = breaker
        self._settings = settings
        self._clock = clock
        self._rng = rng

    async def next(self) -> Route | None:
        """The route to try now; None when there is nothing left to try. Waits where the only way is to repeat one."""
        route = self.fresh()
        if route is None and self._left and self._again:
            await asyncio.sleep(max(self._least_s, self._rng.uniform(0.0, self._bound_s())))
            self._queue, self._again = self._again, []
            self._round += 1
            self._least_s = 0.0
            route = self.fresh()
        return route

    def fresh(self) -> Route | None:
        """The next route that was not asked in this round and does not rest."""
        while self._queue and self._left:
            route = self._queue.pop(0)
            if self._breaker(route).wait_s(self._clock()) == 0.0:
                self._left -= 1
                return route
        return None

    def failed(self, route: Route, failure: Failure | None) -> None:
        """A call of `route` failed before anything was sent."""
        if failure is None or failure.code != UpstreamFailed.code:
            return
        wait_s = failure.retry_after_s or 0.0
        if wait_s <= self._settings.max_backoff_s:
            self._again.append(route)
            self._least_s = max(self._least_s, wait_s)

    def _bound_s(self) -> float:
        return min(self._settings.max_backoff_s, self._settings.backoff_s * 2.0**self._round)
