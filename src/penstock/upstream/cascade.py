"""A cascade: the smaller model answers first, and what it says goes out only where it can be trusted, else the larger one is asked.

    ask      the first model, with the log-probabilities of its tokens; whatever the client did not ask for is left out again
    weigh    its answer as it grows (`router.confidence`); one that cannot be trusted any more is stopped at once
    keep     the whole answer, told piece by piece as it came — or
    escalate to the other model, which streams as it would have without a cascade

(Chen et al. 2023, "FrugalGPT"; Gupta et al. 2024, "Language Model Cascades: Token-level Uncertainty and Beyond".)
An answer is trusted when it ended by itself, all of it could be read, and its confidence is enough; of several choices the least
confident counts. A first answer that nobody got is an attempt of its own, with the purpose "cascade", and is paid for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from msgspec.structs import replace

from penstock.core.errors import PenstockError
from penstock.core.types import Decision, Delta, Escalation, Event, Finish, Judgement, Request, TokenLogprob
from penstock.router.confidence import ALTERNATIVES, Calibration, Reading
from penstock.trace import Progress, Tab
from penstock.upstream.most import Most
from penstock.upstream.protocol import Upstream
from penstock.upstream.source import Source

_UNTRUSTED = {
    "length": "its answer was cut off",
    "tool_calls": "it called tools, which no calibration weighs",
    "content_filter": "it refused",
}


class Cascade:
    """Asks `source`, once or twice. `calibrations` are those of the models that may be asked first, by name."""

    def __init__(self, source: Source, calibrations: Mapping[str, Calibration]) -> None:
        self._source = source
        self._calibrations = calibrations

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        return self._source.upstreams

    async def most(self, request: Request, decision: Decision) -> Most:
        """Of the decision's own routes; those of its escalation come on top."""
        return await self._source.most(request, decision)

    def stream(self, request: Request, decision: Decision, progress: Progress) -> AsyncGenerator[Event, None]:
        """As `Source.stream`. Where the first model is tried, its events come all at once, when it is known to be trusted."""
        escalation = decision.escalation
        if escalation is None or request.inputs is not None:
            return self._source.stream(request, decision, progress)
        if escalation.shadow:
            return self._watched(request, decision, escalation, progress)
        return self._cascaded(request, decision, escalation, progress)

    async def _cascaded(
        self, request: Request, decision: Decision, escalation: Escalation, progress: Progress
    ) -> AsyncGenerator[Event, None]:
        trial = self._trial(request, decision, escalation, progress)
        await self._try(request, decision, trial)
        trial.judge()
        if trial.trusted:
            taken = progress.decision or decision
            progress.decision = replace(taken, why=f"{taken.why}; {trial.why}")
            for event in trial.events:
                yield event
            return
        answered, progress.answering = progress.answering, None
        for tab in progress.tabs:
            tab.purpose = "cascade"
        onward = replace(escalation.decision, why=f"{decision.why}; {trial.why}")
        sent = False
        try:
            async with aclosing(self._source.stream(request, onward, progress)) as events:
                async for event in events:
                    sent = True
                    yield event
            return
        except PenstockError as error:
            if sent or trial.failed:
                raise
            failure = error
        async with aclosing(self._fallen_back(request, decision, trial, answered, failure)) as events:
            async for event in events:
                yield event

    async def _try(self, request: Request, decision: Decision, trial: _Trial) -> None:
        """Gather the first model's answer, as long as it may be trusted. Its call has ended when this returns."""
        if not trial.readable:
            return
        try:
            async with aclosing(self._source.stream(_probing(request), decision, trial.progress)) as events:
                async for event in events:
                    trial.events.append(_as_asked(event, request))
                    if not trial.see(event):
                        return
        except PenstockError as error:
            trial.fail(error)

    async def _fallen_back(
        self, request: Request, decision: Decision, trial: _Trial, answered: Tab | None, failure: PenstockError
    ) -> AsyncGenerator[Event, None]:
        """Nothing was sent and the other model failed: an answer that is less trusted is better than none."""
        progress = trial.progress
        why = f"the larger model failed: {failure.message}"
        progress.judge(Judgement(room="router", rule="cascade", action="kept", why=why, score=trial.confidence))
        chosen = replace(decision, why=f"{decision.why}; {trial.why}; {why}")
        if trial.finish is None or answered is None:  # it was stopped, so it is asked once more
            async with aclosing(self._source.stream(request, chosen, progress)) as events:
                async for event in events:
                    if progress.answering is not None:
                        progress.answering.stands_in = True
                    yield event
            return
        answered.purpose, answered.stands_in = "answer", True
        progress.answering, progress.decision = answered, replace(chosen, route=answered.route)
        for event in trial.events:
            yield event

    async def _watched(
        self, request: Request, decision: Decision, escalation: Escalation, progress: Progress
    ) -> AsyncGenerator[Event, None]:
        """The first answer goes out as it comes; what would have been made of it is written down."""
        trial = self._trial(request, decision, escalation, progress)
        asked = _probing(request, streams=request.streams) if trial.readable else request
        weighing = trial.readable
        async with aclosing(self._source.stream(asked, decision, progress)) as events:
            async for event in events:
                weighing = weighing and trial.see(event)
                if isinstance(event, Finish):
                    trial.judge()
                yield _as_asked(event, request)

    def _trial(self, request: Request, decision: Decision, escalation: Escalation, progress: Progress) -> _Trial:
        return _Trial(request, decision, escalation, progress, self._calibrations)


class _Trial:
    """The first model's answer under way, and what is thought of it. `events` are those that the client would get."""

    def __init__(
        self, request: Request, decision: Decision, escalation: Escalation, progress: Progress, calibrations: Mapping[str, Calibration]
    ) -> None:
        self.progress = progress
        self.events: list[Event] = []
        self.finish: Finish | None = None
        self.failed = False
        self.trusted = False
        self.confidence: float | None = None
        self._model = decision.route.model
        self._escalation = escalation
        self._calibrations = calibrations
        self._readings = [Reading() for _ in range(request.n)]
        self._began_s = progress.elapsed_s()
        self.readable = self._model in calibrations
        self.why = "" if self.readable else f"no calibration of {self._model!r} is known"

    def see(self, event: Event) -> bool:
        """Take note of an event. False: the answer cannot be trusted, whatever comes."""
        if isinstance(event, Finish):
            self._weigh(event)
        elif isinstance(event, Delta) and event.index < len(self._readings):
            reading = self._readings[event.index]
            reading.see(event.text, event.logprobs)
            return self._hopeful(reading)
        return not self.why or self.trusted

    def fail(self, error: PenstockError) -> None:
        """The first model gave no whole answer."""
        self.failed, self.finish = True, None
        self.why = f"{self._model!r} failed: {error.message}"

    def judge(self) -> None:
        """Say what became of it."""
        judgement = Judgement(
            room="router",
            rule="cascade",
            action="kept" if self.trusted else "escalated",
            why=self.why,
            score=self.confidence,
            shadow=self._escalation.shadow,
            took_s=self.progress.elapsed_s() - self._began_s,
        )
        self.progress.judge(judgement)

    def _calibration(self) -> Calibration | None:
        """Of the model that answers, which is another where the first one's routes failed."""
        answering = self.progress.answering
        return self._calibrations.get(self._model if answering is None else answering.route.model)

    def _hopeful(self, reading: Reading) -> bool:
        calibration = self._calibration()
        if calibration is None:
            self.why = "the model that answered has no calibration"
            return False
        if not reading.whole:
            self.why = "its answer came without the probabilities of its tokens"
            return False
        best = calibration.at_best(reading)
        if best < self._escalation.trust:
            self.confidence = best
            self.why = f"confidence at most {_share(best)} < {_share(self._escalation.trust)} after {reading.tokens} tokens"
            return False
        return True

    def _weigh(self, finish: Finish) -> None:
        self.finish = finish
        calibration = self._calibration()
        if finish.reason != "stop" or calibration is None:
            self.why = _UNTRUSTED.get(finish.reason, "it did not end well")
            return
        self.confidence = min(map(calibration.confidence, self._readings))
        self.trusted = self.confidence >= self._escalation.trust
        sign = "≥" if self.trusted else "<"
        self.why = f"confidence {_share(self.confidence)} {sign} {_share(self._escalation.trust)}"


def _probing(request: Request, *, streams: bool = True) -> Request:
    """The request, with what its answer is weighed by. It streams, so that it can be stopped."""
    logprobs = max(request.sampling.logprobs or 0, ALTERNATIVES)
    return replace(request, sampling=replace(request.sampling, logprobs=logprobs), streams=streams)


def _as_asked(event: Event, request: Request) -> Event:
    """The event without the log-probabilities that only the cascade asked for."""
    if not isinstance(event, Delta) or event.logprobs is None:
        return event
    wanted = request.sampling.logprobs
    if wanted is None:
        return replace(event, logprobs=None)
    if wanted >= ALTERNATIVES:
        return event
    return replace(event, logprobs=tuple(_narrowed(token, wanted) for token in event.logprobs))


def _narrowed(token: TokenLogprob, wanted: int) -> TokenLogprob:
    return replace(token, top=token.top[:wanted])


def _share(confidence: float) -> str:
    return f"{confidence:.3f}"
