"""One request as it goes: when it came, when its tokens went out, how many they were."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from penstock.core.types import Decision, Delta, Finish, PromptInfo, Request, Timings, Usage
from penstock.trace.events import Accepted, Ended, Streamed, Trace


class _Choice(Struct):
    """Tokens of one choice so far, and when its last piece went out."""

    tokens: int
    last_s: float


class Progress:
    """Measures one request with the given clock (seconds, monotonic) and tells the trace."""

    def __init__(self, request: Request, clock: Callable[[], float], trace: Trace) -> None:
        self.request = request
        self.decision: Decision | None = None
        self._clock = clock
        self._trace = trace
        self._arrived_s = clock()
        self._first_s: float | None = None
        self._choices: dict[int, _Choice] = {}
        self._prompt = PromptInfo(token_ids=())
        trace.emit(Accepted(request))

    def elapsed_s(self) -> float:
        """Seconds since the request came in."""
        return self._clock() - self._arrived_s

    def see(self, event: PromptInfo | Delta) -> None:
        """Take note of an event on its way to the client."""
        if isinstance(event, PromptInfo):
            self._prompt = event
        elif tokens := len(event.token_ids) or bool(event.text):  # an upstream may not tell its token ids: a piece is one then
            self._count(event.index, tokens)

    def end(self, finish: Finish) -> Ended:
        """Complete `finish` with what was measured, and say that the request has ended."""
        usage = self._usage() if finish.usage == Usage() else finish.usage
        finish = replace(finish, usage=usage, timings=self._timings(finish.timings.queue_s))
        ended = Ended(self.request, self.decision, finish, self._longest())
        self._trace.emit(ended)
        return ended

    def _count(self, index: int, tokens: int) -> None:
        now = self._clock()
        choice = self._choices.get(index)
        if choice is None:
            self._choices[index] = _Choice(tokens, now)
        else:
            self._trace.emit(Streamed(self.request, gap_s=now - choice.last_s, num_tokens=tokens))
            choice.tokens += tokens
            choice.last_s = now
        if self._first_s is None:
            self._first_s = now
            self._trace.emit(Streamed(self.request, ttft_s=now - self._arrived_s))

    def _longest(self) -> int:
        return max((choice.tokens for choice in self._choices.values()), default=0)

    def _usage(self) -> Usage:
        """What was used as far as it was seen: the answer of a request that broke off has no usage of its own."""
        return Usage(
            prompt_tokens=len(self._prompt.token_ids),
            completion_tokens=sum(choice.tokens for choice in self._choices.values()),
            cached_tokens=self._prompt.num_cached_tokens,
        )

    def _timings(self, queue_s: float | None) -> Timings:
        e2e_s = self.elapsed_s()
        if self._first_s is None:
            return Timings(queue_s=queue_s, e2e_s=e2e_s)
        last_s = max(choice.last_s for choice in self._choices.values())
        later = self._longest() - 1
        tpot_s = (last_s - self._first_s) / later if later > 0 else None
        return Timings(queue_s=queue_s, ttft_s=self._first_s - self._arrived_s, tpot_s=tpot_s, e2e_s=e2e_s)
