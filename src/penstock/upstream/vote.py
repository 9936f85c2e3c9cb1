"""The inference budget: several samples of one answer, computed as one batch over one prompt, of which one is given.

`majority` gives the answer whose final answer most samples share (self-consistency: Wang et al. 2022, "Self-Consistency Improves
Chain of Thought Reasoning in Language Models"), of equals the most confident; `confidence` gives the one whose tokens were the
likeliest on average (best of N by the model's own word). All samples are paid for, and the usage is that of all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from msgspec import Struct
from msgspec.structs import replace

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import Decision, Delta, Event, Finish, FinishReason, Judgement, PromptInfo, Request
from penstock.trace import Progress
from penstock.upstream.final import final_answer
from penstock.upstream.most import Most
from penstock.upstream.protocol import Upstream
from penstock.upstream.source import Source

MOST_SAMPLES = 128  # as choices of one request


class _Sample(Struct):
    """One of the answers as it comes in."""

    pieces: list[Delta] = []
    reason: FinishReason | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def confidence(self) -> float | None:
        """The geometric mean of its tokens' probabilities; None where they are not known."""
        logprobs = [token.logprob for piece in self.pieces for token in piece.logprobs or ()]
        return math.exp(max(sum(logprobs) / len(logprobs), -700.0)) if logprobs else None


class _Box:
    """Gathers the events of all samples."""

    def __init__(self, samples: int) -> None:
        self.samples = [_Sample() for _ in range(samples)]
        self.prompt: PromptInfo | None = None
        self.finish: Finish | None = None

    def put(self, event: Event) -> None:
        if isinstance(event, Delta):
            sample = self.samples[event.index]
            sample.pieces.append(event)
            sample.reason = event.finish_reason
        elif isinstance(event, PromptInfo):
            self.prompt = event
        elif isinstance(event, Finish):
            self.finish = event


class _Chosen(Struct, frozen=True):
    """The sample that is given, and why it is that one."""

    sample: _Sample
    action: str
    why: str
    score: float | None


class Vote:
    """Asks `source`, for as many choices as the request wants samples."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._mute: set[str] = set()  # models that refuse log-probabilities; a majority needs them only for ties

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        return self._source.upstreams

    async def most(self, request: Request, decision: Decision) -> Most:
        return await self._source.most(request if request.options.samples == 1 else sampled(request), decision)

    def stream(self, request: Request, decision: Decision, progress: Progress) -> AsyncGenerator[Event, None]:
        """As `Source.stream`; of several samples one comes out as the only choice, once all have ended."""
        if request.options.samples == 1:
            return self._source.stream(request, decision, progress)
        return self._voted(request, decision, progress)

    async def _voted(self, request: Request, decision: Decision, progress: Progress) -> AsyncGenerator[Event, None]:
        began_s = progress.elapsed_s()
        box = _Box(request.options.samples)
        async with aclosing(self._asked(request, decision, progress)) as events:
            async for event in events:
                box.put(event)
        chosen = _choose(box.samples, request)
        took_s = progress.elapsed_s() - began_s
        progress.judge(Judgement(room="router", rule="vote", action=chosen.action, why=chosen.why, score=chosen.score, took_s=took_s))
        if box.prompt is not None:
            yield box.prompt
        for piece in chosen.sample.pieces:
            wanted = request.sampling.logprobs is not None
            yield replace(piece, index=0, logprobs=piece.logprobs if wanted else None)
        if box.finish is not None:
            yield replace(box.finish, reason=chosen.sample.reason or box.finish.reason)

    async def _asked(self, request: Request, decision: Decision, progress: Progress) -> AsyncGenerator[Event, None]:
        """All samples; with the tokens' log-probabilities where the model tells any."""
        model = decision.route.model
        asked = sampled(request)
        scored = replace(asked, sampling=replace(asked.sampling, logprobs=request.sampling.logprobs or 0))
        needed = request.sampling.logprobs is not None or request.options.choose == "confidence"
        if needed or model not in self._mute:
            try:
                async with aclosing(self._source.stream(scored, decision, progress)) as events:
                    async for event in events:
                        yield event
                return
            except Unsupported as error:
                if needed or error.param != "logprobs":
                    raise
                self._mute.add(model)
        async with aclosing(self._source.stream(asked, decision, progress)) as events:
            async for event in events:
                yield event


def sampled(request: Request) -> Request:
    """The request for all samples at once. Raises InvalidRequest, which names what does not go together with samples."""
    samples = request.options.samples
    if not 1 <= samples <= MOST_SAMPLES:
        raise InvalidRequest(f"samples is {samples}; from 1 to {MOST_SAMPLES} go", param="penstock.samples")
    conflicts = {
        "n": request.n > 1,
        "tools": bool(request.tools),
        "temperature": request.sampling.temperature == 0.0,
        "input": request.inputs is not None,
    }
    for param, is_asked in conflicts.items():
        if is_asked:
            raise InvalidRequest(f"{samples} samples and {_CONFLICTS[param]}", hint=_HINTS[param], param=param)
    return replace(request, n=samples)


_CONFLICTS = {
    "n": "n > 1 do not go together: one of the samples is given",
    "tools": "tools do not go together: there is no vote on calls",
    "temperature": "temperature 0 do not go together: all samples would be the same",
    "input": "embeddings do not go together",
}
_HINTS = {
    "n": "leave out n, or penstock.samples",
    "tools": "leave out penstock.samples",
    "temperature": "0.7 is usual for a vote",
    "input": "leave out penstock.samples",
}


def _choose(samples: list[_Sample], request: Request) -> _Chosen:
    whole = [sample for sample in samples if sample.reason == "stop"] or samples  # what was cut off has no final answer
    if request.options.choose == "confidence":
        best = max(whole, key=_rank)
        return _Chosen(best, f"most confident of {len(samples)}", _told(best), best.confidence())
    finals = [final_answer(sample.text) for sample in whole]
    votes = Counter(final for final in finals if final)
    most = max(votes.values(), default=0)
    shared = [sample for sample, final in zip(whole, finals, strict=True) if not votes or votes[final] == most]
    best = max(shared, key=_rank)
    ties = sum(count == most for count in votes.values())
    why = f"{most} of {len(samples)} samples share their final answer"
    if ties > 1:
        why += f", as do {ties - 1} other groups; the most confident of them was taken" if ties > 2 else ", as does one other group"
    return _Chosen(best, f"{most} of {len(samples)}", why, most / len(samples))


def _rank(sample: _Sample) -> float:
    confidence = sample.confidence()
    return -1.0 if confidence is None else confidence


def _told(sample: _Sample) -> str:
    confidence = sample.confidence()
    return "no probabilities came; the first was taken" if confidence is None else f"mean token probability {confidence:.3f}"
