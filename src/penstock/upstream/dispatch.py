"""Calls upstreams on behalf of the pipeline: the next route, or the same again, while nothing has been sent.

    order    replicas of a model by what they have to do and have seen (`balance`); routes that rest are left out (`breaker`)
    try      each in turn, then again after a pause (`tries`), each call an attempt of its own in the ledger (`call`)
    race     where hedging is on: no first token in time, and the next route is asked, too (`hedge`)

Once the first event has come there is one upstream and one loop over its events.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping

from msgspec.structs import replace

from penstock.core.config import DispatchSettings
from penstock.core.errors import NotReady, PenstockError
from penstock.core.types import Decision, Event, Finish, Purpose, Request, Route
from penstock.trace import Progress, Rerouted, Trace
from penstock.upstream.balance import Balance, Ordered
from penstock.upstream.breaker import Breaker
from penstock.upstream.call import Call
from penstock.upstream.hedge import race
from penstock.upstream.most import Most, most_tokens
from penstock.upstream.protocol import Upstream
from penstock.upstream.tries import Tries


class Dispatch:
    """Owns nothing: whoever made the upstreams closes them. `clock` is in seconds, monotonic; `rng` draws pauses."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        settings: DispatchSettings | None = None,
        *,
        trace: Trace | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.upstreams = upstreams
        self._settings = settings or DispatchSettings()
        self._trace = trace or Trace()
        self._clock = clock
        self._rng = rng or random.Random()
        self._timed = self._settings.hedge_after_s is not None or self._settings.first_token_s is not None
        self._balance = Balance()
        self._breakers: dict[Route, Breaker] = {}

    async def stream(self, request: Request, decision: Decision, progress: Progress) -> AsyncGenerator[Event, None]:
        """Stream from the first route that works; `progress.decision` and `progress.answering` follow. Once something
        was sent there is no way back. Raises the last failure when nothing works."""
        if self._timed and not request.streams:
            request = replace(request, streams=True)  # else its first token is not seen before the last
        call = await self._answering(request, decision, progress)
        try:
            if call.first is not None:
                yield call.first
            async for event in call.events:
                if isinstance(event, Finish):
                    call.finish(event)
                yield event
        except Exception as error:
            call.fail(error)
            raise
        finally:
            await call.close()

    async def most(self, request: Request, decision: Decision) -> Most:
        """The most that answering can take, over all routes that may be asked and all calls that may have to be paid.

        Raises InvalidRequest where nothing bounds it.
        """
        routes = _distinct(decision)
        each = [await most_tokens(request, self.upstreams[route.upstream], route) for route in routes]
        return Most(
            prompt_tokens=max(most.prompt_tokens for most in each),
            completion_tokens=max(most.completion_tokens for most in each),
            calls=1 if request.inputs is not None else self._paid_calls(len(routes)),
        )

    async def _answering(self, request: Request, decision: Decision, progress: Progress) -> Call:
        """The call whose first event has come."""
        routes = _distinct(decision)
        ordered = Ordered(routes) if len(routes) == 1 else self._balance.order(request, routes, self._fit)
        tries = Tries(ordered.routes, self._breaker, self._settings, self._clock, self._rng)
        failure: PenstockError | None = None
        while (route := await tries.next()) is not None:
            if failure is not None:
                self._trace.emit(Rerouted(request, progress.tabs[-1].route, failure.failure()))
            begun = len(progress.tabs)
            call = self._open(request, route, progress, replicas=len(routes) > 1)
            progress.decision = _taken(decision, route, ordered, failure)
            try:
                winner = await self._begin(request, call, tries, progress)
            except PenstockError as error:
                if not error.retryable:
                    raise
                for tab in progress.tabs[begun:]:
                    tries.failed(tab.route, tab.failure)
                failure = error
                continue
            if winner is not call:
                why = f"{progress.decision.why}; {route.upstream!r} was slow to begin"
                progress.decision = replace(progress.decision, route=winner.tab.route, why=why)
            progress.answering = winner.tab
            return winner
        raise failure or self._all_rest(request, routes)

    async def _begin(self, request: Request, call: Call, tries: Tries, progress: Progress) -> Call:
        """Wait for the first event of `call`, or of a rival. What fails has ended when this raises."""
        hedge_after_s, limit_s = self._settings.hedge_after_s, self._settings.first_token_s
        if request.inputs is not None:  # vectors come all at once
            hedge_after_s = limit_s = None
        if hedge_after_s is not None:

            def rival() -> Call | None:
                route = tries.fresh()
                return None if route is None else self._open(request, route, progress, replicas=True, purpose="hedge")

            return await race(call, rival, after_s=hedge_after_s, limit_s=limit_s)
        try:
            await call.begin(limit_s)
        except BaseException as error:
            if isinstance(error, Exception):
                call.fail(error)
            await call.close()
            raise
        return call

    def _open(self, request: Request, route: Route, progress: Progress, *, replicas: bool, purpose: Purpose | None = None) -> Call:
        if purpose is None:
            again = any(tab.purpose != "cascade" for tab in progress.tabs)
            purpose = "retry" if again else "answer" if request.inputs is None else "embedding"
        tab = progress.attempt(route, purpose)
        events = self.upstreams[route.upstream].stream(request, route, tab)
        call = Call(events, tab, progress, self._breaker(route), self._clock)
        if replicas:
            call.weigh(self._balance, self._balance.begin(request, route))
        return call

    def _fit(self, route: Route) -> bool:
        breaker, now_s = self._breaker(route), self._clock()
        return breaker.wait_s(now_s) == 0.0 and not breaker.full(now_s) and self.upstreams[route.upstream].health().ready

    def _breaker(self, route: Route) -> Breaker:
        breaker = self._breakers.get(route)
        if breaker is None:
            breaker = self._breakers[route] = Breaker(str(route), self._settings)
        return breaker

    def _paid_calls(self, num_routes: int) -> int:
        """Both runners of a race, and each call that is given up because it was slow; one that fails by itself is not paid."""
        if self._settings.first_token_s is not None:
            return min(self._settings.attempts, num_routes)
        return 1 if self._settings.hedge_after_s is None else min(2, self._settings.attempts, num_routes)

    def _all_rest(self, request: Request, routes: tuple[Route, ...]) -> NotReady:
        now_s = self._clock()
        wait_s = min(self._breaker(route).wait_s(now_s) for route in routes)
        whys = "; ".join(f"{route.upstream!r}: {self._breaker(route).why}" for route in routes)
        hint = f"it is tried again in {wait_s:.1f} s"
        return NotReady(f"{request.model!r} is not served now, since calls failed in a row ({whys})", hint=hint, retry_after_s=wait_s)


def _distinct(decision: Decision) -> tuple[Route, ...]:
    if len(decision.candidates) <= 1 and decision.candidates in ((), (decision.route,)):
        return (decision.route,)
    return tuple(dict.fromkeys((decision.route, *decision.candidates)))


def _taken(decision: Decision, route: Route, ordered: Ordered, failure: PenstockError | None) -> Decision:
    """The decision with the route that is called, and why it is that one."""
    if failure is not None:
        return replace(decision, route=route, why=f"{decision.why}; after another call failed: {failure.message}")
    if ordered.why and route == ordered.routes[0]:
        return replace(decision, route=route, why=f"{decision.why}; {ordered.why}")
    return decision if route == decision.route else replace(decision, route=route)
