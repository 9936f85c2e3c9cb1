"""What happens to requests, as plain data, and the fan that hands it to those who watch."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import Struct

from penstock.core.types import Decision, Failure, Finish, Request, Route

log = logging.getLogger(__name__)


class Accepted(Struct, frozen=True):
    """A request has come in. Exactly one `Ended` follows."""

    request: Request


class Streamed(Struct, frozen=True):
    """A piece with tokens has gone out. Exactly one of the two times is set; seconds."""

    request: Request
    ttft_s: float | None = None  # the request's first piece: since its arrival
    gap_s: float | None = None  # a later piece: since the one before it of the same choice
    num_tokens: int = 1


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


TraceEvent = Accepted | Streamed | Rerouted | Ended
Observer = Callable[[TraceEvent], None]


class Trace:
    """Hands each event to every observer. An observer that fails is logged and never harms a request."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def emit(self, event: TraceEvent) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                log.exception("an observer failed on %s", type(event).__name__)
