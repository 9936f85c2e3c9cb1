"""What one call of an upstream runs up: written by the upstream as it goes, read when the call ends, however it ends."""

from __future__ import annotations

from penstock.core.types import EngineUse, Failure, FinishReason, Purpose, Route, Usage


class Tab:
    """One attempt under way. Times are seconds on the monotonic clock.

    An upstream sets `usage` and `use` as soon as it knows them and keeps them right until its generator has closed: a client
    that leaves, or a race that is lost, ends the attempt without a `Finish`.
    """

    def __init__(self, route: Route, purpose: Purpose, number: int, started_s: float, started_at: float) -> None:
        self.route = route
        self.purpose = purpose
        self.number = number
        self.started_s = started_s
        self.started_at = started_at  # unix seconds
        self.usage: Usage | None = None  # None: nothing is known
        self.use: EngineUse | None = None
        self.queue_s: float | None = None
        self.first_s: float | None = None  # when its first token came
        self.ended_s: float | None = None  # None: still under way
        self.reason: FinishReason = "abort"
        self.failure: Failure | None = None
        self.stands_in = False  # its answer is given because a better one failed: no cache keeps it
