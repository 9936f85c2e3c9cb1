"""The last quarter of an hour, for the page: what each second saw, and the last requests.

A second costs a fixed amount of memory, an event a fixed amount of time, and a request a small struct without its texts
(unless the settings say to keep those). Latencies are counted in buckets 9 % wide, so a percentile is right within 5 %.
Everything is read and written on the event loop.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal

from msgspec import Struct

from penstock.core.config import PageSettings
from penstock.core.types import Request
from penstock.trace.events import Accepted, Ended, Streamed, TraceEvent
from penstock.trace.judgements import became
from penstock.trace.metrics import StepStats

KEPT_S = 900  # seconds that the window goes back
QUANTILES = (0.5, 0.95, 0.99)
MOST_TEXT = 4000  # characters of a prompt and of an answer that are kept
MOST_ROUTES = 32  # told apart in one second; the others are counted as one
OTHERS = "others"

_WIDTH = math.log(2) / 8
_SHORTEST_S = 1e-5

Quantiles = tuple[float, ...]
Counts = dict[int, int]  # a histogram: bucket to count


class EnginePoint(Struct, frozen=True, kw_only=True):
    """An engine during a step: shares of 1, and sequences at its end."""

    busy: float
    kv_usage: float
    running: int
    waiting: int


class Point(Struct, frozen=True, kw_only=True):
    """What a step of `span_s` seconds saw. Counts are of the whole step; a reader divides. Quantiles: see `QUANTILES`.

    Requests, prompts and money count when a request ends, output tokens when they go out. Dollars are for drawing.
    """

    at: int  # unix seconds of its beginning
    span_s: int
    ended: int
    failed: int
    left: int  # the client left
    open: int  # requests under way, the most at any time
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float
    saved_usd: float
    unpriced: int  # ended requests whose cost is unknown
    lookups: int
    hits: int
    routes: Mapping[str, int]
    became: Mapping[str, int]  # requests by what guards, cache and router made of them: see `trace.judgements`
    ttft_s: Quantiles | None
    tpot_s: Quantiles | None
    engines: Mapping[str, EnginePoint]


class Kept(Struct, frozen=True):
    """A request that has ended, without its texts but for what the settings let be kept. `number` counts up from 1."""

    number: int
    ended: Ended
    prompt: str | None = None


class Open(Struct):
    """A request under way."""

    request: Request
    arrived_at: float
    output_tokens: int = 0
    ttft_s: float | None = None


class _Engine:
    """What an engine said last."""

    __slots__ = ("busy_s", "kv_usage", "running", "waiting")

    def __init__(self) -> None:
        self.busy_s = self.kv_usage = 0.0
        self.running = self.waiting = 0


class _EngineSecond:
    __slots__ = ("busy_s", "kv_usage", "running", "waiting")

    def __init__(self, kv_usage: float, running: int, waiting: int) -> None:
        self.busy_s = 0.0
        self.kv_usage = kv_usage
        self.running = running
        self.waiting = waiting


class _Second:
    """One second's counts."""

    __slots__ = (
        "at", "became", "cached_tokens", "cost_usd", "ended", "engines", "failed", "hits", "left", "lookups", "open", "output_tokens",
        "prompt_tokens", "routes", "saved_usd", "tpot", "ttft", "unpriced",
    )  # fmt: skip

    def __init__(self, at: int, open_now: int) -> None:
        self.at = at
        self.open = open_now
        self.ended = self.failed = self.left = self.unpriced = self.lookups = self.hits = 0
        self.prompt_tokens = self.cached_tokens = self.output_tokens = 0
        self.cost_usd = self.saved_usd = Decimal(0)
        self.routes: dict[str, int] = {}
        self.became: Counter[str] = Counter()
        self.ttft: Counts = {}
        self.tpot: Counts = {}
        self.engines: dict[str, _EngineSecond] = {}


class Window:
    """An observer of the trace; `step` observes the engines. `clock` is in unix seconds."""

    def __init__(self, settings: PageSettings, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._keep_text = settings.keep_text
        self._engines: dict[str, _Engine] = {}
        self._open: dict[int, Open] = {}  # by the request's identity: clients may use an id twice
        self._kept: deque[Kept] = deque(maxlen=settings.history)
        self._seconds: deque[_Second] = deque(maxlen=KEPT_S)  # without gaps, the newest last
        self._second = _Second(int(clock()), 0)
        self._seconds.append(self._second)
        self.started_at = clock()
        self.total = 0  # requests that have ended since the start

    def __call__(self, event: TraceEvent) -> None:
        """Observe one event of a request."""
        second = self._now()
        if isinstance(event, Streamed):
            self._streamed(second, event)
        elif isinstance(event, Accepted):
            self._open[id(event.request)] = Open(event.request, self._clock())
            second.open = max(second.open, len(self._open))
        elif isinstance(event, Ended):
            self._ended(second, event)

    def step(self, model: str, stats: StepStats) -> None:
        """Take in what the engine of `model` says after a step."""
        second = self._now()
        engine = self._engines.setdefault(model, _Engine())
        worked_s = stats.busy_s - engine.busy_s if stats.busy_s >= engine.busy_s else stats.busy_s  # it may have been restarted
        engine.busy_s, engine.kv_usage = stats.busy_s, stats.kv_usage
        engine.running, engine.waiting = stats.num_running, stats.num_waiting
        seen = second.engines.get(model)
        if seen is None:
            seen = second.engines[model] = _EngineSecond(engine.kv_usage, engine.running, engine.waiting)
        seen.busy_s += worked_s
        seen.kv_usage = max(seen.kv_usage, stats.kv_usage)
        seen.running = max(seen.running, stats.num_running)
        seen.waiting = max(seen.waiting, stats.num_waiting)
        if seen.busy_s > 1.0:
            self._spread_back(model)

    @property
    def num_open(self) -> int:
        """Requests under way."""
        return len(self._open)

    @property
    def models(self) -> tuple[str, ...]:
        """Those whose engines have taken a step."""
        return tuple(self._engines)

    def points(self, since: float, step_s: int) -> Iterator[Point]:
        """The steps from the one that holds `since` on, aligned to multiples of `step_s`, made of the seconds that are over."""
        now = self._now().at
        start = math.floor(since / step_s) * step_s
        group: list[_Second] = []
        for second in self._seconds:
            if not start <= second.at < now:
                continue
            if group and second.at // step_s != group[0].at // step_s:
                yield _point(group)
                group = []
            group.append(second)
        if group:
            yield _point(group)

    def requests(self, *, before: int | None = None, after: int = 0, limit: int = 100) -> list[Kept]:
        """Requests that have ended, the newest first, by number: above `after` and below `before`."""
        found: list[Kept] = []
        for kept in reversed(self._kept):
            if kept.number <= after or len(found) >= limit:
                break
            if before is None or kept.number < before:
                found.append(kept)
        return found

    def under_way(self, limit: int = 100) -> list[Open]:
        """Requests that have not ended, the newest first."""
        return list(self._open.values())[: -limit - 1 : -1]

    def request(self, number: int) -> Kept | None:
        """The request of that number, while it is remembered."""
        index = number - self._kept[0].number if self._kept else -1
        return self._kept[index] if 0 <= index < len(self._kept) else None

    def _now(self) -> _Second:
        """The counts of this second. Seconds in which nothing happened are made when the next thing does."""
        now = int(self._clock())
        if now <= self._second.at:
            return self._second
        for at in range(max(self._second.at + 1, now - KEPT_S + 1), now + 1):
            second = _Second(at, len(self._open))
            second.engines = {model: _EngineSecond(seen.kv_usage, seen.running, seen.waiting) for model, seen in self._engines.items()}
            self._seconds.append(second)
        self._second = self._seconds[-1]
        return self._second

    def _streamed(self, second: _Second, event: Streamed) -> None:
        gaps_s = event.gaps_s
        if (known := self._open.get(id(event.request))) is not None:
            known.output_tokens += len(gaps_s)
            if event.ttft_s is not None:
                known.output_tokens += 1
                known.ttft_s = event.ttft_s
        if gaps_s:
            second.output_tokens += len(gaps_s)
            _count(second.tpot, sum(gaps_s) / len(gaps_s))  # of at most so many tokens in a row as the trace tells at once
        if event.ttft_s is not None:
            second.output_tokens += 1
            _count(second.ttft, event.ttft_s)

    def _ended(self, second: _Second, event: Ended) -> None:
        finish = event.finish
        usage = finish.usage
        known = self._open.pop(id(event.request), None)
        second.ended += 1
        if finish.failure is not None or finish.reason == "error":
            second.failed += 1
        elif finish.reason == "abort":
            second.left += 1
        second.prompt_tokens += usage.prompt_tokens
        second.cached_tokens += usage.cached_tokens
        if known is not None and usage.completion_tokens > known.output_tokens:  # a piece held more tokens than were told
            second.output_tokens += usage.completion_tokens - known.output_tokens
        if finish.cost_usd is None:
            second.unpriced += 1
        else:
            second.cost_usd += finish.cost_usd
        if event.cache == "hit":
            second.hits += 1
            second.lookups += 1
            second.saved_usd += sum((attempt.saved_usd or Decimal(0) for attempt in event.attempts), Decimal(0))
        elif event.cache == "miss":
            second.lookups += 1
        if event.decision is not None:
            _count_route(second.routes, event)
        second.became.update(became(event.judgements))
        self.total += 1
        self._kept.append(self._keep(event))

    def _keep(self, event: Ended) -> Kept:
        """What is remembered of a request: all but its messages, its tools and what guards made of it."""
        asked = event.shown
        slim = Request(id=asked.id, model=asked.model, principal=asked.principal, priority=asked.priority, n=asked.n)
        text = event.text[:MOST_TEXT] if self._keep_text and event.text else None
        ended = Ended(
            slim, event.decision, event.finish, event.longest_choice, event.arrived_at, event.attempts, event.stages, event.cache,
            event.judgements, text,
        )  # fmt: skip
        return Kept(self.total, ended, _prompt(asked) if self._keep_text else None)

    def _spread_back(self, model: str) -> None:
        """A step that took longer than a second is told at its end: what does not fit into this second was before it."""
        over_s = 0.0
        for second in reversed(self._seconds):
            seen = second.engines.get(model)
            if seen is None:
                return
            seen.busy_s += over_s
            over_s = max(0.0, seen.busy_s - 1.0)
            seen.busy_s -= over_s
            if over_s <= 0.0:
                return


def _count(counts: Counts, seconds: float) -> None:
    bucket = math.floor(math.log(max(seconds, _SHORTEST_S)) / _WIDTH)
    counts[bucket] = counts.get(bucket, 0) + 1


def _count_route(routes: dict[str, int], event: Ended) -> None:
    if event.cache == "hit":
        name = "cache"
    elif event.decision is not None:
        name = str(event.decision.route)
    else:
        return
    if name not in routes and len(routes) >= MOST_ROUTES:
        name = OTHERS
    routes[name] = routes.get(name, 0) + 1


def _quantiles(histograms: Iterable[Counts]) -> Quantiles | None:
    """By nearest rank; a bucket stands for its geometric middle."""
    merged: Counts = {}
    for counts in histograms:
        for bucket, count in counts.items():
            merged[bucket] = merged.get(bucket, 0) + count
    if not merged:
        return None
    total = sum(merged.values())
    ranks = [math.ceil(quantile * total) for quantile in QUANTILES]
    values: list[float] = []
    seen = 0
    for bucket in sorted(merged):
        seen += merged[bucket]
        while len(values) < len(ranks) and ranks[len(values)] <= seen:
            values.append(math.exp((bucket + 0.5) * _WIDTH))
    return tuple(values)


def _point(group: list[_Second]) -> Point:
    routes: dict[str, int] = {}
    for second in group:
        for name, count in second.routes.items():
            routes[name] = routes.get(name, 0) + count
    return Point(
        at=group[0].at,
        span_s=len(group),
        ended=sum(second.ended for second in group),
        failed=sum(second.failed for second in group),
        left=sum(second.left for second in group),
        open=max(second.open for second in group),
        prompt_tokens=sum(second.prompt_tokens for second in group),
        cached_tokens=sum(second.cached_tokens for second in group),
        output_tokens=sum(second.output_tokens for second in group),
        cost_usd=float(sum(second.cost_usd for second in group)),
        saved_usd=float(sum(second.saved_usd for second in group)),
        unpriced=sum(second.unpriced for second in group),
        lookups=sum(second.lookups for second in group),
        hits=sum(second.hits for second in group),
        routes=routes,
        became=sum((second.became for second in group), Counter()),
        ttft_s=_quantiles(second.ttft for second in group),
        tpot_s=_quantiles(second.tpot for second in group),
        engines={model: _engine_point(model, group) for second in group[-1:] for model in second.engines},
    )


def _engine_point(model: str, group: list[_Second]) -> EnginePoint:
    seen = [second.engines[model] for second in group if model in second.engines]
    return EnginePoint(
        busy=min(1.0, sum(second.busy_s for second in seen) / len(group)),
        kv_usage=max(second.kv_usage for second in seen),
        running=max(second.running for second in seen),
        waiting=max(second.waiting for second in seen),
    )


def _prompt(request: Request) -> str:
    """The end of what was asked."""
    if request.messages:
        return request.messages[-1].content[-MOST_TEXT:]
    if request.prompt is not None:
        return request.prompt[-MOST_TEXT:]
    if request.inputs is not None and request.inputs and isinstance(request.inputs[0], str):
        return request.inputs[0][:MOST_TEXT]
    return ""
