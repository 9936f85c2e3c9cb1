"""One request as it goes: when it came, which way it went, when its tokens went out, how many they were."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import TracebackType

from msgspec import Struct
from msgspec.structs import replace

from penstock.core.types import (
    Attempt,
    CacheState,
    Decision,
    Delta,
    EngineUse,
    Finish,
    Judgement,
    PromptInfo,
    Purpose,
    Request,
    Route,
    Stage,
    Timings,
    Usage,
)
from penstock.trace.events import Accepted, Ended, Streamed, Trace
from penstock.trace.tab import Tab

GAPS_TOLD = 64  # gaps between tokens that are gathered before the trace is told

Cost = Callable[[Route, Usage, EngineUse | None], Decimal | None]


class _Choice(Struct):
    """Tokens of one choice so far, and when its last piece went out."""

    tokens: int
    last_s: float


class _Stage:
    """A stage under way. `note` says what came of it."""

    __slots__ = ("_name", "_progress", "_started_s", "note")

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self.note = ""

    def __enter__(self) -> _Stage:
        self._started_s = self._progress.elapsed_s()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        progress = self._progress
        progress.stages.append(Stage(name=self._name, start_s=self._started_s, end_s=progress.elapsed_s(), note=self.note))


class Progress:
    """Measures one request with the given clock (seconds, monotonic) and tells the trace.

    `decision`, `cache` and `judgements` are set as they become known: before the first event reaches the client.
    """

    def __init__(self, request: Request, clock: Callable[[], float], trace: Trace) -> None:
        self.request = request
        self.decision: Decision | None = None
        self.cache: CacheState = "off"
        self.judgements: list[Judgement] = []
        self.warning: str | None = None  # of a limit that only warns
        self.tabs: list[Tab] = []
        self.answering: Tab | None = None  # the attempt whose events are on their way
        self.stages: list[Stage] = []
        self.saved_usd: Decimal | None = None  # by a cached answer
        self.ended: Ended | None = None
        self._clock = clock
        self._trace = trace
        self._arrived_s = clock()
        self._arrived_at = time.time()
        self._first_s: float | None = None
        self._choices: dict[int, _Choice] = {}
        self._gaps_s: list[float] = []
        self._text: list[str] | None = [] if trace.keep_text else None
        self._redacted: Request | None = None
        self._hidden: Mapping[str, str] = {}  # what a guard took out of the request, by its placeholder
        self._prompt = PromptInfo(token_ids=())
        trace.emit(Accepted(request))

    def elapsed_s(self) -> float:
        """Seconds since the request came in."""
        return self._clock() - self._arrived_s

    def stage(self, name: str) -> _Stage:
        """Note how long a stage takes: `with progress.stage("guard"):`."""
        return _Stage(self, name)

    def judge(self, judgement: Judgement) -> None:
        """Take note of what a room decided."""
        self.judgements.append(judgement)

    def redacted(self, request: Request, originals: Mapping[str, str]) -> None:
        """Whoever keeps texts keeps those of `request`, and placeholders where the answer has `originals`."""
        if request is not self.request:
            self._redacted = request
        self._hidden = originals

    def attempt(self, route: Route, purpose: Purpose) -> Tab:
        """Begin an attempt; `close` ends it, and whatever is open at the end of the request ends with that."""
        tab = Tab(route, purpose, len(self.tabs), self._clock(), time.time())
        self.tabs.append(tab)
        return tab

    def close(self, tab: Tab) -> None:
        """The attempt has ended; its `reason`, `failure`, `usage` and `use` are final."""
        tab.ended_s = self._clock()

    def see(self, event: PromptInfo | Delta) -> None:
        """Take note of an event on its way to the client."""
        if isinstance(event, PromptInfo):
            self._prompt = event
            return
        if tokens := len(event.token_ids) or (event.num_pieces if event.text or event.reasoning or event.tool_calls else 0):
            self._count(event.index, tokens)
        if self._text is not None and event.index == 0:
            self._text.append(event.text)

    def end(self, finish: Finish, cost: Cost | None = None) -> Ended:
        """Complete `finish` with what was measured and what it cost, and say that the request has ended."""
        self._tell_gaps()
        usage = self._usage() if finish.usage == Usage() else finish.usage
        attempts = tuple(self._attempt(tab, finish, cost) for tab in self.tabs)
        finish = replace(finish, usage=usage, timings=self._timings(self._queue_s(finish)), cost_usd=_total(attempts))
        self.ended = Ended(
            request=self.request,
            redacted=self._redacted,
            decision=self.decision,
            finish=finish,
            longest_choice=self._longest(),
            arrived_at=self._arrived_at,
            attempts=attempts,
            stages=tuple(self.stages),
            cache=self.cache,
            judgements=tuple(self.judgements),
            text=None if self._text is None else self._hiding("".join(self._text)),
        )
        self._trace.emit(self.ended)
        return self.ended

    def _hiding(self, text: str) -> str:
        for placeholder, original in sorted(self._hidden.items(), key=lambda pair: -len(pair[1])):
            text = text.replace(original, placeholder)
        return text

    def _count(self, index: int, tokens: int) -> None:
        now = self._clock()
        choice = self._choices.get(index)
        if choice is None:
            self._choices[index] = _Choice(tokens, now)
        else:
            self._gaps_s += [(now - choice.last_s) / tokens] * tokens
            choice.tokens += tokens
            choice.last_s = now
            if len(self._gaps_s) >= GAPS_TOLD:
                self._tell_gaps()
        if self._first_s is None:
            self._first_s = now
            self._trace.emit(Streamed(self.request, self._route(), ttft_s=now - self._arrived_s))

    def _tell_gaps(self) -> None:
        if self._gaps_s:
            self._trace.emit(Streamed(self.request, self._route(), gaps_s=tuple(self._gaps_s)))
            self._gaps_s = []

    def _route(self) -> Route | None:
        return None if self.decision is None else self.decision.route

    def _longest(self) -> int:
        return max((choice.tokens for choice in self._choices.values()), default=0)

    def _attempt(self, tab: Tab, finish: Finish, cost: Cost | None) -> Attempt:
        """The attempt as the ledger keeps it. What is still open now, or ended without a word of its own, ended with the request."""
        ended_s = self._clock() if tab.ended_s is None else tab.ended_s
        usage = tab.usage or Usage(estimated=True)
        known = tab.purpose != "cache" and (tab.usage is not None or tab.use is not None)  # an answer from the cache costs nothing
        first_s = tab.first_s
        return Attempt(
            id=f"{self.request.id}#{tab.number}",
            request_id=self.request.id,
            number=tab.number,
            purpose=tab.purpose,
            key_id=self.request.principal.key_id,
            tenant=self.request.tenant,
            model=self.request.model,
            route=tab.route,
            started_at=tab.started_at,
            reason=tab.reason,
            failure=tab.failure.code if tab.failure else None,
            usage=usage,
            use=tab.use,
            timings=Timings(
                queue_s=tab.queue_s,
                ttft_s=None if first_s is None else first_s - tab.started_s,
                e2e_s=ended_s - tab.started_s,
            ),
            cost_usd=cost(tab.route, usage, tab.use) if cost is not None and known else Decimal(0) if not known else None,
            saved_usd=self.saved_usd if tab.purpose == "cache" else None,
        )

    def _usage(self) -> Usage:
        """The answer of a request that broke off has no usage of its own: it is what its attempt knows, or else what was seen."""
        tab = self._last_tab()
        if tab is not None and tab.usage is not None:
            return tab.usage
        return Usage(
            prompt_tokens=len(self._prompt.token_ids),
            completion_tokens=sum(choice.tokens for choice in self._choices.values()),
            cached_tokens=self._prompt.num_cached_tokens,
        )

    def _queue_s(self, finish: Finish) -> float | None:
        """As the answer says, or its attempt where it broke off."""
        tab = self._last_tab()
        return finish.timings.queue_s if finish.timings.queue_s is not None or tab is None else tab.queue_s

    def _last_tab(self) -> Tab | None:
        return self.answering or (self.tabs[-1] if self.tabs else None)

    def _timings(self, queue_s: float | None) -> Timings:
        e2e_s = self.elapsed_s()
        if self._first_s is None:
            return Timings(queue_s=queue_s, e2e_s=e2e_s)
        last_s = max(choice.last_s for choice in self._choices.values())
        later = self._longest() - 1
        tpot_s = (last_s - self._first_s) / later if later > 0 else None
        return Timings(queue_s=queue_s, ttft_s=self._first_s - self._arrived_s, tpot_s=tpot_s, e2e_s=e2e_s)


def _total(attempts: tuple[Attempt, ...]) -> Decimal | None:
    """The sum; unknown as soon as one of them is."""
    total = Decimal(0)
    for attempt in attempts:
        if attempt.cost_usd is None:
            return None
        total += attempt.cost_usd
    return total
