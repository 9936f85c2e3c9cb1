"""What an answer tells of itself: headers on every answer, and the `penstock` object where it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from urllib.parse import quote

from msgspec import Struct

from penstock.core.types import Attempt, CacheState, Judgement, Stage, Timings, Usage
from penstock.trace import Ended, Progress

UNKNOWN = "unknown"
PENDING = b"pending"  # the cost of a stream that has only begun
_HEADER_SAFE = " !#$&'()*+,/:;=?@[]~"


class ExplainedAttempt(Struct, frozen=True, kw_only=True):
    """One call of an upstream. `failure` is an error's code; `cost_usd` None: unknown."""

    route: str
    purpose: str
    reason: str
    failure: str | None
    started_s: float  # since the request's arrival
    timings: Timings
    usage: Usage
    cost_usd: str | None


class Explained(Struct, frozen=True, kw_only=True):
    """The `penstock` object: where the request went and why, what it met on its way, how long and how much it took.

    Dollars are plain decimals as text, null where unknown. Stages are seconds since the request's arrival.
    """

    request_id: str
    model: str  # that answered
    route: str | None  # "upstream/model"; null: it went nowhere
    why: str
    candidates: tuple[str, ...]
    scores: tuple[float, ...]
    cache: CacheState
    judgements: tuple[Judgement, ...]
    stages: tuple[Stage, ...]
    attempts: tuple[ExplainedAttempt, ...]
    timings: Timings
    usage: Usage
    cost_usd: str | None
    saved_usd: str | None


class Told(Struct, frozen=True, kw_only=True):
    """What is known at the end of a call. `cost`: dollars as a plain decimal, or "unknown"."""

    cost: str
    explained: Explained | None = None

    @property
    def comment(self) -> bytes:
        """The cost as a comment between server-sent events: no client takes it for content."""
        return b": x-penstock-cost " + self.cost.encode() + b"\n\n"


def tell(request_id: str, runs: Sequence[Progress], *, explain: bool) -> Told:
    """What became of one call's requests. Only a call of one request is explained."""
    ended = runs[0].ended
    return Told(cost=dollars(cost(runs)) or UNKNOWN, explained=explained(request_id, ended) if explain and ended is not None else None)


def headers(runs: Sequence[Progress], *, pending: bool) -> list[tuple[bytes, bytes]]:
    """The raw `x-penstock-…` headers as far as they are known; of several requests the first one's route."""
    first = runs[0]
    price = PENDING if pending else (dollars(cost(runs)) or UNKNOWN).encode()
    told = [(b"x-penstock-cost", price), (b"x-penstock-cache", cache_state(runs).encode())]
    if first.decision is not None:
        route = first.decision.route
        told += [(b"x-penstock-model", _header(route.model)), (b"x-penstock-route", _header(str(route)))]
    if first.warning is not None:
        told.append((b"x-penstock-warning", _header(first.warning)))
    return told


def cost(runs: Sequence[Progress]) -> Decimal | None:
    """Dollars of all of them; None as soon as one is unknown."""
    total = Decimal(0)
    for run in runs:
        if run.ended is None or run.ended.finish.cost_usd is None:
            return None
        total += run.ended.finish.cost_usd
    return total


def cache_state(runs: Sequence[Progress]) -> CacheState:
    """A call is a hit where all of its requests are."""
    states: set[CacheState] = {run.cache for run in runs}
    return next((state for state in ("miss", "bypass", "hit") if state in states), "off")


def explained(request_id: str, ended: Ended) -> Explained:
    """What became of one request."""
    decision, finish = ended.decision, ended.finish
    saved = [attempt.saved_usd for attempt in ended.attempts if attempt.saved_usd is not None]
    return Explained(
        request_id=request_id,
        model=decision.route.model if decision else ended.request.model,
        route=str(decision.route) if decision else None,
        why=decision.why if decision else "",
        candidates=tuple(map(str, decision.candidates)) if decision else (),
        scores=decision.scores if decision else (),
        cache=ended.cache,
        judgements=ended.judgements,
        stages=ended.stages,
        attempts=tuple(_attempt(attempt, ended.arrived_at) for attempt in ended.attempts),
        timings=finish.timings,
        usage=finish.usage,
        cost_usd=dollars(finish.cost_usd),
        saved_usd=dollars(sum(saved, Decimal(0))) if saved else None,
    )


def _attempt(attempt: Attempt, arrived_at: float) -> ExplainedAttempt:
    return ExplainedAttempt(
        route=str(attempt.route),
        purpose=attempt.purpose,
        reason=attempt.reason,
        failure=attempt.failure,
        started_s=attempt.started_at - arrived_at,
        timings=attempt.timings,
        usage=attempt.usage,
        cost_usd=dollars(attempt.cost_usd),
    )


def dollars(amount: Decimal | None) -> str | None:
    """Without an exponent, as `1E-7` is no decimal to most readers."""
    return None if amount is None else format(amount, "f")


def _header(value: str) -> bytes:
    """An upstream names its models as it likes; a header is ASCII on one line."""
    return (value if value.isascii() and value.isprintable() else quote(value, safe=_HEADER_SAFE)).encode()
