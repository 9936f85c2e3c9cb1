"""Calls upstreams on behalf of the pipeline, and tries the next route while nothing has been sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from msgspec.structs import replace

from penstock.core.errors import PenstockError
from penstock.core.types import Decision, Event, Finish, Request
from penstock.trace import Progress, Rerouted, Trace
from penstock.upstream.most import Most, most_tokens
from penstock.upstream.protocol import Upstream


class Dispatch:
    """Owns nothing: whoever made the upstreams closes them."""

    def __init__(self, upstreams: Mapping[str, Upstream], *, trace: Trace | None = None) -> None:
        self.upstreams = upstreams
        self._trace = trace or Trace()

    async def stream(self, request: Request, decision: Decision, progress: Progress) -> AsyncGenerator[Event, None]:
        """Stream from the first route that works; `progress.decision` follows. Once something was sent there is no way back."""
        routes = [decision.route, *(route for route in decision.candidates if route != decision.route)]
        for number, route in enumerate(routes, start=1):
            progress.decision = replace(decision, route=route)
            sent = False
            tab = progress.attempt(route, "retry" if number > 1 else "answer" if request.inputs is None else "embedding")
            try:
                async with aclosing(self.upstreams[route.upstream].stream(request, route, tab)) as events:
                    async for event in events:
                        if isinstance(event, Finish):
                            tab.reason = event.reason
                            tab.usage = tab.usage or event.usage
                        sent = True
                        yield event
                return
            except PenstockError as error:
                tab.reason, tab.failure = "error", error.failure()
                if sent or not error.retryable or number == len(routes):
                    raise
                self._trace.emit(Rerouted(request, route, error.failure()))
            finally:
                progress.close(tab)

    async def most(self, request: Request, decision: Decision) -> Most:
        """The most that answering can take. Raises InvalidRequest where nothing bounds it."""
        return await most_tokens(request, self.upstreams[decision.route.upstream], decision.route)
