"""One call of an upstream, and everything that has to be told when it ends, in whatever way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from penstock.core.errors import DeadlineExceeded, PenstockError
from penstock.core.types import Event, Finish
from penstock.trace import Progress, Tab
from penstock.upstream.balance import Balance
from penstock.upstream.breaker import Breaker

Clock = Callable[[], float]


class Call:
    """An attempt under way. Whoever made it closes it."""

    __slots__ = ("_balance", "_breaker", "_clock", "_probe", "_progress", "_tokens", "events", "first", "rivals", "tab")

    def __init__(self, events: AsyncGenerator[Event, None], tab: Tab, progress: Progress, breaker: Breaker, clock: Clock) -> None:
        self.events = events
        self.tab = tab
        self.first: Event | None = None
        self.rivals: list[asyncio.Task[None]] = []  # the ends of calls that lost a race against this one
        self._progress = progress
        self._breaker = breaker
        self._clock = clock
        self._balance: Balance | None = None
        self._tokens = 0.0
        self._probe = breaker.begin()

    def weigh(self, balance: Balance, tokens: float) -> None:
        """Its route is one of several replicas and has these tokens to do."""
        self._balance, self._tokens = balance, tokens

    async def begin(self, limit_s: float | None) -> None:
        """Wait for the first event, which is `first` then; None where the upstream ended without one.

        Raises what the upstream raises, and DeadlineExceeded after `limit_s`.
        """
        if limit_s is None:
            first = await anext(self.events, None)
        else:
            first = await self._within(limit_s)
        if self._probe:
            self._breaker.answered()
            self._probe = False
        if self.tab.first_s is None:
            self.tab.first_s = self._clock()
        if isinstance(first, Finish):
            self.finish(first)
        self.first = first

    def finish(self, finish: Finish) -> None:
        """The answer is whole."""
        self.tab.reason = finish.reason
        self.tab.usage = self.tab.usage or finish.usage
        self._breaker.answered()

    def fail(self, error: Exception) -> None:
        """The upstream raised this."""
        self.tab.reason = "error"
        if isinstance(error, PenstockError):
            self.tab.failure = error.failure()
            self._breaker.failed(error, self._clock(), probe=self._probe)
            self._probe = False

    async def close(self) -> None:
        """Stop the upstream; after it the tab is final. Waits for rivals to have ended, too."""
        try:
            await self.events.aclose()
        finally:
            self._progress.close(self.tab)
            self._breaker.left(probe=self._probe)
            self._probe = False
            if self._balance is not None:
                whole = self.tab.usage is not None and self.tab.reason in ("stop", "length", "tool_calls")
                self._balance.end(self.tab.route, self._tokens, self.tab.usage.completion_tokens if self.tab.usage and whole else None)
                self._balance = None
            if self.rivals:
                await asyncio.wait(self.rivals)

    async def _within(self, limit_s: float) -> Event | None:
        try:
            async with asyncio.timeout(limit_s) as timer:
                return await anext(self.events, None)
        except TimeoutError:
            if not timer.expired():
                raise
        raise DeadlineExceeded(
            f"{self.tab.route.upstream!r} sent nothing within {limit_s} s", hint="dispatch.first_token_s says how long it may take"
        )
