"""A circuit breaker for one route.

    closed ──failures in a row──▶ open ──rest is over──▶ half-open: one call probes
       ▲                           ▲                        │
       └────────── it answers ─────┼────────────────────────┤
                                   └────── it fails ────────┘

Only failures that are the route's own are counted: no connection, nonsense, no word in time. One that says that it is full or
is being restarted is alive and is believed: for as long as it asks for, other replicas go first. One that refuses a bad request
has answered.
"""

from __future__ import annotations

import logging

from penstock.core.config import DispatchSettings
from penstock.core.errors import DeadlineExceeded, EngineDied, NotReady, Overloaded, PenstockError, UpstreamFailed

log = logging.getLogger(__name__)

FULL_S = 1.0  # where a route that is full does not say for how long


class Breaker:
    """Counts one route's failures; `name` is what the log calls it. Times are seconds on the caller's clock."""

    __slots__ = ("_failures", "_full_until_s", "_limit", "_name", "_probing", "_rest_s", "_until_s", "why")

    def __init__(self, name: str, settings: DispatchSettings) -> None:
        self.why = ""  # the last failure's message
        self._name = name
        self._full_until_s = 0.0
        self._limit = settings.breaker_failures
        self._rest_s = settings.breaker_open_s
        self._failures = 0
        self._until_s: float | None = None  # None: closed
        self._probing = False

    def wait_s(self, now_s: float) -> float:
        """Until a call may be made, 0: now. While another call probes, as long as a whole rest."""
        if self._until_s is None:
            return 0.0
        return self._rest_s if self._probing else max(0.0, self._until_s - now_s)

    def full(self, now_s: float) -> bool:
        """It said that it is full, and until when."""
        return now_s < self._full_until_s

    def begin(self) -> bool:
        """A call is made. True: it is the probe, on which the others wait."""
        if self._until_s is None:
            return False
        self._probing = True
        return True

    def answered(self) -> None:
        """The route works."""
        if self._until_s is not None:
            log.info("%s answers again", self._name)
        self._failures = 0
        self._until_s = None
        self._probing = False

    def failed(self, error: PenstockError, now_s: float, *, probe: bool) -> None:
        """A call ended in `error`."""
        if isinstance(error, UpstreamFailed | DeadlineExceeded):
            self._failures += 1
            self.why = error.message
            if probe or (self._until_s is None and self._failures >= self._limit):
                self._until_s = now_s + self._rest_s
                log.warning("%s rests for %g s after %d failures: %s", self._name, self._rest_s, self._failures, error.message)
        elif not isinstance(error, EngineDied | NotReady):
            self.answered()
            if isinstance(error, Overloaded):
                self._full_until_s = now_s + (error.retry_after_s or FULL_S)
        self.left(probe=probe)

    def left(self, *, probe: bool) -> None:
        """A call ended without a word of how the route is: its client has gone. The next one may probe."""
        if probe:
            self._probing = False
