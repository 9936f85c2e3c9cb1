"""What happens to a request.

Admit it; check the input; look in the cache; choose a route; reserve what it may cost; generate, trying the next route while
nothing has been sent; check the output as it streams, whether a model or the cache gives it; record; settle. Every request
ends in exactly one `Finish` and is recorded exactly once, whatever happened: an answer, a cache hit, a refusal, a failure, a
deadline, a client that left. There is no second path.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal

from msgspec.structs import replace

from penstock.cache import Cache, Found, NoCache
from penstock.core.deadline import Deadline
from penstock.core.errors import Bug, InvalidRequest, NotReady, PenstockError, PriceUnknown
from penstock.core.types import (
    Decision,
    Event,
    Failure,
    Finish,
    Health,
    Judgement,
    ModelCard,
    PromptInfo,
    Request,
    Route,
    Sampling,
    Vectors,
    unheard,
)
from penstock.guard import AllowAll, Guard
from penstock.meter import Admission, Hold, Ledger, MemoryLedger, NoPrices, Pricing, Unlimited
from penstock.router import Router
from penstock.trace import Progress, Trace
from penstock.upstream import Counting, Source, Tokenizing

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Every part that a request meets on its way. `deadline_s` bounds requests that bring no deadline; None: unbounded."""

    dispatch: Source
    router: Router
    admission: Admission = field(default_factory=Unlimited)
    guard: Guard = field(default_factory=AllowAll)
    cache: Cache = field(default_factory=NoCache)
    pricing: Pricing = field(default_factory=NoPrices)
    ledger: Ledger = field(default_factory=MemoryLedger)
    trace: Trace = field(default_factory=Trace)
    clock: Callable[[], float] = time.monotonic  # seconds
    deadline_s: float | None = None

    def begin(self, request: Request) -> Progress:
        """What will be known of a request on its way, for whoever wants to look while `run` runs it."""
        return Progress(request, self.clock, self.trace)

    async def run(self, request: Request, progress: Progress | None = None) -> AsyncGenerator[Event, None]:
        """Answer a request: `PromptInfo` at most once, `Delta`s (or one `Vectors`), then exactly one `Finish`. Raises nothing.

        A failure is `Finish(reason="error")` with its `failure`. Close the generator (`aclosing`) when the client
        leaves: that stops the computation, and the request is recorded with the reason "abort".
        """
        progress = progress or self.begin(request)
        hold: Hold | None = None
        finish = Finish(reason="abort")
        try:
            with Deadline(progress.elapsed_s, self.deadline_s if request.deadline_s is None else request.deadline_s) as deadline:
                hold = await deadline.wait(self.admission.admit(request.principal, request.id))
                async with aclosing(self._answer(request, hold, progress)) as events:
                    while not isinstance(event := await deadline.next(events), Finish):
                        if not isinstance(event, Vectors):
                            progress.see(event)
                        yield event
            finish = event
        except PenstockError as error:
            finish = Finish(reason="error", failure=error.failure())
        except Exception:
            log.exception("request %s met a bug", request.id)
            finish = Finish(reason="error", failure=Bug("internal error", hint="the server's log has the details").failure())
        finally:
            finish = self._record(progress, finish)
            if hold is not None:
                await hold.settle(_used_tokens(progress), finish.cost_usd)
        yield finish

    async def _answer(self, request: Request, hold: Hold, progress: Progress) -> AsyncGenerator[Event, None]:
        with progress.stage("guard") as stage:
            checked = await self.guard.check(request, progress.judge)
            progress.redacted(checked.request, checked.originals)
            stage.note = "refuse" if checked.refusal else "redact" if checked.originals else "allow"
        if checked.refusal is not None and checked.failed:
            message = f"the rule {checked.refusal.rule!r} could not judge the request: {checked.refusal.why}"
            raise NotReady(message, hint="try again")
        if checked.refusal is not None:
            yield _refusal(checked.refusal)
            return
        request = checked.request
        with progress.stage("cache") as stage:
            found = await self.cache.find(request, progress.judge)
            stage.note = progress.cache = found.state
        good = False
        try:
            if found.state == "hit":
                made = kept = self._replay(found, progress)
            else:
                made = self._generate(request, hold, progress)
                kept = self.cache.keep(found, made, lambda: progress.answering or progress.tabs[-1])
            async with aclosing(made), aclosing(kept), aclosing(self.guard.watch(checked, kept, progress.judge)) as watched:
                async for event in watched:
                    good = isinstance(event, Finish) and event.reason != "content_filter" and event.failure is None
                    yield event
        finally:
            await self.cache.done(found, good=good)

    async def _replay(self, found: Found, progress: Progress) -> AsyncGenerator[Event, None]:
        self._take_from_cache(found, progress)
        for event in found.events:
            yield event

    async def _generate(self, request: Request, hold: Hold, progress: Progress) -> AsyncGenerator[Event, None]:
        with progress.stage("route") as stage:
            decision = progress.decision = await self.router.choose(request, progress.judge)
            stage.note = decision.why
        if request.options.max_cost_usd is not None or self.admission.needs_worst_case(request.principal):
            with progress.stage("reserve"):
                await self._reserve(request, decision, hold)
            progress.warning = hold.warning
        async with aclosing(self.dispatch.stream(request, decision, progress)) as generated:
            async for event in generated:
                if isinstance(event, Finish) and event.failure is None:
                    self.router.took(request, progress.decision.route)
                yield event

    async def _reserve(self, request: Request, decision: Decision, hold: Hold) -> None:
        """Hold the worst case against the key's limits and the client's own. Raises InvalidRequest, PriceUnknown, RateLimited."""
        tokens, cost = await self._worst_case(request, decision)
        most = request.options.max_cost_usd
        if most is not None and cost is None:
            hint = "leave out penstock.max_cost_usd, or give it a price in the price book"
            raise PriceUnknown(f"what {decision.route.model!r} costs is not known", hint=hint, param="penstock.max_cost_usd")
        if most is not None and cost is not None and cost > most:
            hint = "ask for fewer max_tokens, or of a cheaper model"
            raise InvalidRequest(f"it may cost ${cost:f}; max_cost_usd is ${most:f}", hint=hint, param="penstock.max_cost_usd")
        if self.admission.needs_worst_case(request.principal):
            await hold.reserve(tokens, cost)

    async def _worst_case(self, request: Request, decision: Decision) -> tuple[int, Decimal | None]:
        """Tokens and dollars of the dearest way to answer; a cascade may have to pay for the first model and another call."""
        tokens, dollars = await self._worst_call(request, decision)
        if decision.escalation is None or decision.escalation.shadow:
            return tokens, dollars
        more, dearer = await self._worst_call(request, decision.escalation.decision)
        return tokens + max(tokens, more), None if dollars is None or dearer is None else dollars + max(dollars, dearer)

    async def _worst_call(self, request: Request, decision: Decision) -> tuple[int, Decimal | None]:
        """Over all routes of one decision; no price where that of one is unknown."""
        most = await self.dispatch.most(request, decision)
        tokens = (most.prompt_tokens + most.completion_tokens) * most.calls
        dearest = Decimal(0)
        for route in decision.candidates if decision.route in decision.candidates else (decision.route, *decision.candidates):
            if (cost := self.pricing.worst(route, most.prompt_tokens, most.completion_tokens)) is None:
                return tokens, None
            dearest = max(dearest, cost)
        return tokens, dearest * most.calls

    def _take_from_cache(self, found: Found, progress: Progress) -> None:
        route = found.route or Route(upstream="cache", model=progress.request.model)
        progress.decision = Decision(route=route, why=found.why or "answered before")
        progress.saved_usd = self.pricing.cost(route, found.usage, found.use)
        tab = progress.attempt(route, "cache")
        tab.usage = found.usage
        tab.reason = "stop"
        progress.close(tab)

    def _record(self, progress: Progress, finish: Finish) -> Finish:
        ended = progress.end(finish, self.pricing.cost)
        try:
            self.ledger.record(ended)
        except Exception:
            log.exception("request %s was not recorded", ended.request.id)
        return ended.finish

    def models(self) -> tuple[ModelCard, ...]:
        """Every name that can be asked for: each model once, however many serve it, then the aliases, whose `root` is their model."""
        cards: dict[str, ModelCard] = {}
        for upstream in self.dispatch.upstreams.values():
            for card in upstream.models():
                cards.setdefault(card.id, card)
        named = self.router.aliases.items()
        return (*cards.values(), *(replace(cards[model], id=name, root=model) for name, model in named if model in cards))

    def default_sampling(self, model: str) -> Sampling:
        """What `model`, or the model that it stands for, samples by when a request leaves a field unset; else plain defaults."""
        model = self.router.aliases.get(model, model)
        upstreams = self.dispatch.upstreams.values()
        return next((card.default_sampling for upstream in upstreams for card in upstream.models() if card.id == model), Sampling())

    def health(self) -> Health:
        """Ready when each model can be answered by some upstream; otherwise why the first is not, by name."""
        upstreams = self.dispatch.upstreams
        states = {name: upstream.health() for name, upstream in upstreams.items()}
        answered = {card.id for name, state in states.items() if state.ready for card in upstreams[name].models()}
        for name, state in states.items():
            if not state.ready and any(card.id not in answered for card in upstreams[name].models()):
                return replace(state, why=f"{name}: {state.why or state.state}")
        return Health(state="ready")

    async def tokenize(self, request: Request) -> PromptInfo:
        """What the prompt of `request` becomes. Raises `ModelNotFound`, `InvalidRequest`."""
        return await (await self._tokenizing(request)).tokenize(request)

    async def count_tokens(self, request: Request) -> int:
        """How many tokens the prompt of `request` has, as the guard lets it pass: who counts may be another server.

        Raises `ModelNotFound`, `InvalidRequest`, also for what the guard refuses.
        """
        checked = await self.guard.check(request, unheard)
        if (refusal := checked.refusal) is not None:
            raise InvalidRequest(f"refused by the rule {refusal.rule!r}: {refusal.why}")
        request = checked.request
        route = (await self.router.choose(request)).route
        upstream = self.dispatch.upstreams[route.upstream]
        if isinstance(upstream, Counting):
            return await upstream.count_tokens(request, route)
        return len((await self.tokenize(request)).token_ids)

    async def detokenize(self, request: Request) -> str:
        """The text of `request.prompt_token_ids`. Raises `ModelNotFound`, `InvalidRequest`."""
        return await (await self._tokenizing(request)).detokenize(request.prompt_token_ids or ())

    async def token_strings(self, request: Request, token_ids: Sequence[int]) -> tuple[str, ...]:
        """How each of `token_ids` is displayed by the model of `request`. Raises `ModelNotFound`, `InvalidRequest`."""
        return (await self._tokenizing(request)).token_strings(token_ids)

    async def _tokenizing(self, request: Request) -> Tokenizing:
        decision = await self.router.choose(request)
        upstream = self.dispatch.upstreams[decision.route.upstream]
        if not isinstance(upstream, Tokenizing):
            hint = "models of this server's own engines tell their tokens"
            raise InvalidRequest(f"the tokenizer of {request.model!r} is not known here", hint=hint, param="model")
        return upstream

    async def close(self) -> None:
        """Free every upstream, write the last of the ledger."""
        for upstream in self.dispatch.upstreams.values():
            await upstream.close()
        await self.cache.close()
        await self.ledger.close()
        await self.admission.close()


def _used_tokens(progress: Progress) -> int:
    """Of all attempts, as their cost: also of those that lost a race."""
    return sum(attempt.used_tokens for attempt in progress.ended.attempts) if progress.ended else 0


def _refusal(judgement: Judgement) -> Finish:
    failure = Failure(status=400, code="content_filter", message=f"refused by the rule {judgement.rule!r}: {judgement.why}")
    return Finish(reason="content_filter", failure=failure)
