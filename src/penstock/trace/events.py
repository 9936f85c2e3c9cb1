"""What happens to requests, as plain data, and the fan that hands it to those who watch."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import Struct

from penstock.core.types import Attempt, CacheState, Decision, Failure, Finish, Judgement, Request, Route, Stage

log = logging.getLogger(__name__)


class Accepted(Struct, frozen=True):
    """A request has come in. Exactly one `Ended` follows."""

    request: Request


class Streamed(Struct, frozen=True):
    """Tokens have gone out: the first, or some more. Seconds.

    `gaps_s` has one entry per token: the time since the token before it of the same choice; tokens that left together share it.
    They are told in batches, the last before the end of the request.
    """

    request: Request
    route: Route | None = None  # None: not from an upstream
    ttft_s: float | None = None  # the request's first piece: since its arrival
    gaps_s: tuple[float, ...] = ()


class Rerouted(Struct, frozen=True):
    """A route failed before anything was sent; the next one is tried."""

    request: Request
    route: Route
    failure: Failure


class Ended(Struct, frozen=True):
    """The end of a request, whatever happened. `decision` is None when it was never routed."""

    request: Request
    decision: Decision | None
    finish: Finish
    longest_choice: int = 0  # tokens of its longest choice
    arrived_at: float = 0.0  # unix seconds
    attempts: tuple[Attempt, ...] = ()  # every call of an upstream, in the order begun
    stages: tuple[Stage, ...] = ()
    cache: CacheState = "off"
    judgements: tuple[Judgement, ...] = ()  # in the order made; a guard that simply allows says nothing
    text: str | None = None  # the first choice's, where somebody who watches keeps texts; what a guard redacted is redacted in it
    redacted: Request | None = None  # the request without what a guard took out of it; None: it took nothing

    @property
    def shown(self) -> Request:
        """The request as it may be kept."""
        return self.redacted or self.request


TraceEvent = Accepted | Streamed | Rerouted | Ended
Observer = Callable[[TraceEvent], None]


class Trace:
    """Hands each event to every observer. An observer that fails is logged and never harms a request."""

    def __init__(self, *observers: Observer, keep_text: bool = False) -> None:
        self.keep_text = keep_text
        self._observers = observers

    def emit(self, event: TraceEvent) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                log.exception("an observer failed on %s", type(event).__name__)
