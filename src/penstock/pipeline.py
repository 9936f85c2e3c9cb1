"""What happens to a request.

Check the input; look in the cache; choose a route; generate, trying the next route while nothing has been sent; check
the output as it streams; record. Every request ends in exactly one `Finish` and is recorded exactly once, whatever
happened: an answer, a cache hit, a refusal, a failure, a deadline, a client that left. There is no second path.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from msgspec.structs import replace

from penstock.cache import Cache, NoCache
from penstock.core.errors import Bug, DeadlineExceeded, InvalidRequest, PenstockError
from penstock.core.types import Decision, Event, Failure, Finish, Health, ModelCard, PromptInfo, Request, Sampling, Verdict
from penstock.guard import AllowAll, Guard
from penstock.meter import Ledger, MemoryLedger
from penstock.router import Router
from penstock.trace import Progress, Rerouted, Trace
from penstock.upstream import Tokenizing, Upstream

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Every part that a request meets on its way. `deadline_s` bounds requests that bring no deadline; None: unbounded."""

    upstreams: Mapping[str, Upstream]
    router: Router
    guard: Guard = field(default_factory=AllowAll)
    cache: Cache = field(default_factory=NoCache)
    ledger: Ledger = field(default_factory=MemoryLedger)
    trace: Trace = field(default_factory=Trace)
    clock: Callable[[], float] = time.monotonic  # seconds
    deadline_s: float | None = None

    async def run(self, request: Request) -> AsyncGenerator[Event, None]:
        """Answer a request: `PromptInfo` at most once, `Delta`s, then exactly one `Finish`. Raises nothing.

        A failure is `Finish(reason="error")` with its `failure`. Close the generator (`aclosing`) when the client
        leaves: that stops the computation, and the request is recorded with the reason "abort".
        """
        progress = Progress(request, self.clock, self.trace)
        finish = Finish(reason="abort")
        try:
            async with aclosing(self._answer(request, progress)) as events:
                while not isinstance(event := await self._next(events, progress), Finish):
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
        yield finish

    async def _answer(self, request: Request, progress: Progress) -> AsyncGenerator[Event, None]:
        checked = await self.guard.check(request)
        if checked.verdict.action == "refuse":
            yield _refusal(checked.verdict)
            return
        request = checked.request
        if (answer := await self.cache.find(request)) is not None:
            for event in answer:
                yield event
            return
        progress.decision = await self.router.choose(request)
        async with (
            aclosing(self._generate(request, progress.decision, progress)) as generated,
            aclosing(self.guard.watch(request, generated)) as watched,
            aclosing(self.cache.keep(request, watched)) as kept,
        ):
            async for event in kept:
                yield event

    async def _generate(self, request: Request, decision: Decision, progress: Progress) -> AsyncGenerator[Event, None]:
        """Stream from the first route that works. Once something was sent there is no way back."""
        routes = [decision.route, *(route for route in decision.candidates if route != decision.route)]
        for number, route in enumerate(routes, start=1):
            progress.decision = replace(decision, route=route)
            sent = False
            try:
                async with aclosing(self.upstreams[route.upstream].stream(request, route)) as events:
                    async for event in events:
                        sent = True
                        yield event
                return
            except PenstockError as error:
                if sent or not error.retryable or number == len(routes):
                    raise
                self.trace.emit(Rerouted(request, route, error.failure()))

    async def _next(self, events: AsyncGenerator[Event, None], progress: Progress) -> Event:
        """The next event, if it comes before the deadline."""
        deadline_s = self.deadline_s if progress.request.deadline_s is None else progress.request.deadline_s
        left_s = None if deadline_s is None else deadline_s - progress.elapsed_s()
        if left_s is not None and left_s <= 0:
            raise _late(deadline_s)
        try:
            async with asyncio.timeout(left_s) as timeout:
                return await anext(events)
        except StopAsyncIteration:
            raise Bug("the answer ended without a Finish") from None
        except TimeoutError:
            if timeout.expired():
                raise _late(deadline_s) from None
            raise

    def _record(self, progress: Progress, finish: Finish) -> Finish:
        ended = progress.end(finish)
        try:
            self.ledger.record(ended)
        except Exception:
            log.exception("request %s was not recorded", ended.request.id)
        return ended.finish

    def models(self) -> tuple[ModelCard, ...]:
        """Every model that can be asked for."""
        return tuple(card for upstream in self.upstreams.values() for card in upstream.models())

    def default_sampling(self, model: str) -> Sampling:
        """What `model` samples by when a request leaves a field unset; plain defaults for a model unknown here."""
        return next((card.default_sampling for card in self.models() if card.id == model), Sampling())

    def health(self) -> Health:
        """Ready when every upstream is; otherwise the first that is not, by name."""
        for name, upstream in self.upstreams.items():
            health = upstream.health()
            if not health.ready:
                return replace(health, why=f"{name}: {health.why or health.state}")
        return Health(state="ready")

    async def tokenize(self, request: Request) -> PromptInfo:
        """What the prompt of `request` becomes. Raises `ModelNotFound`, `InvalidRequest`."""
        return await (await self._tokenizing(request)).tokenize(request)

    async def detokenize(self, request: Request) -> str:
        """The text of `request.prompt_token_ids`. Raises `ModelNotFound`, `InvalidRequest`."""
        return await (await self._tokenizing(request)).detokenize(request.prompt_token_ids or ())

    async def token_strings(self, request: Request, token_ids: Sequence[int]) -> tuple[str, ...]:
        """How each of `token_ids` is displayed by the model of `request`. Raises `ModelNotFound`, `InvalidRequest`."""
        return (await self._tokenizing(request)).token_strings(token_ids)

    async def _tokenizing(self, request: Request) -> Tokenizing:
        decision = await self.router.choose(request)
        upstream = self.upstreams[decision.route.upstream]
        if not isinstance(upstream, Tokenizing):
            raise InvalidRequest(f"the tokenizer of {request.model!r} is not known here", param="model")
        return upstream

    async def close(self) -> None:
        """Free every upstream."""
        for upstream in self.upstreams.values():
            await upstream.close()


def _refusal(verdict: Verdict) -> Finish:
    failure = Failure(status=400, code="content_filter", message=f"refused by the rule {verdict.rule!r}: {verdict.why}")
    return Finish(reason="content_filter", failure=failure)


def _late(deadline_s: float | None) -> DeadlineExceeded:
    return DeadlineExceeded(f"no complete answer within {deadline_s} s", hint="ask for fewer tokens or allow more time")
