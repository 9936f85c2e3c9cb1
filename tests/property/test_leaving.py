"""A client that leaves at any step, perhaps twice, or a deadline then: one record of each request, one row of each call, and nothing
stays held, open or counted twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from decimal import Decimal

import pytest

from penstock.core.config import DispatchSettings, LimitSettings
from penstock.core.errors import UpstreamFailed
from penstock.core.types import (
    Delta,
    EngineUse,
    Event,
    Finish,
    Health,
    Limits,
    ModelCard,
    Principal,
    PromptInfo,
    Request,
    Route,
    Sampling,
    Usage,
)
from penstock.gateway.merge import merged
from penstock.meter import MemoryLedger
from penstock.meter.counters import Claim, MemoryCounters, Refusal
from penstock.meter.counters.outage import PolicyCounters
from penstock.meter.limits import Limiter
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace import Ended, Tab
from penstock.upstream import Dispatch, routes_by_model

LIMITS = Limits(concurrent_requests=10, tokens_per_minute=10**6, budget_day_usd=Decimal(10**6))
KEY = Principal(key_id="k", limits=LIMITS)


class Store(MemoryCounters):
    """One that is asked over a wire: a client may leave before an operation is done, and after it."""

    async def admit(self, claim: Claim) -> Refusal | None:
        return await self._ask(super().admit, claim)

    async def reserve(self, claim: Claim) -> Refusal | None:
        return await self._ask(super().reserve, claim)

    async def settle(self, claim: Claim) -> None:
        await self._ask(super().settle, claim)

    async def _ask(self, operation: Callable[[Claim], Awaitable[Refusal | None]], claim: Claim) -> Refusal | None:
        await asyncio.sleep(0)
        refusal = await operation(claim)
        await asyncio.sleep(0)
        return refusal


class Steps:
    """An upstream that takes a step before each event, and one to close."""

    def __init__(self, *, slow: int = 0, fails: bool = False) -> None:
        self.calls = self.open = 0
        self._slow = slow
        self._fails = fails

    def models(self) -> tuple[ModelCard, ...]:
        return (ModelCard(id="m", created=0, max_model_len=1000),)

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        self.calls += 1
        self.open += 1
        sent = 0
        try:
            for _ in range(1 + self._slow):
                await asyncio.sleep(0)
            if self._fails:
                raise UpstreamFailed("no")
            yield PromptInfo(token_ids=(1, 2))
            for sent in (1, 2, 3):
                await asyncio.sleep(0)
                yield Delta(text="x", token_ids=(sent,), finish_reason="stop" if sent == 3 else None)
            yield Finish(reason="stop", usage=Usage(prompt_tokens=2, completion_tokens=3))
        finally:
            tab.usage = Usage(prompt_tokens=2, completion_tokens=sent)
            self.open -= 1
            await asyncio.sleep(0)

    def health(self) -> Health:
        return Health(state="ready")

    async def close(self) -> None:
        return None


class ADollarEach:
    """A token costs a dollar."""

    def cost(self, route: Route, usage: Usage, use: EngineUse | None) -> Decimal | None:
        return Decimal(usage.total_tokens)

    def worst(self, route: Route, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        return Decimal(prompt_tokens + completion_tokens)


class Kept(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Ended] = []

    def record(self, ended: Ended) -> None:
        self.entries.append(ended)


WAYS: dict[str, Callable[[], dict[str, Steps]]] = {
    "plain": lambda: {"a": Steps()},
    "retry": lambda: {"a": Steps(fails=True), "b": Steps()},
    "race": lambda: {"a": Steps(slow=6), "b": Steps(slow=2)},
}


class Gateway:
    def __init__(self, way: str, deadline_s: float | None) -> None:
        self.upstreams = WAYS[way]()
        self.store, self.local, self.ledger = Store(600), MemoryCounters(600), Kept()
        self.counters = PolicyCounters(self.store, self.local, LimitSettings())
        settings = DispatchSettings(backoff_s=0, hedge_after_s=1e-6 if way == "race" else None)
        self.pipeline = Pipeline(
            dispatch=Dispatch(self.upstreams, settings),
            router=FixedRouter(routes_by_model(self.upstreams)),
            admission=Limiter(self.counters),
            pricing=ADollarEach(),
            ledger=self.ledger,
            deadline_s=deadline_s,
        )

    async def read(self, requests: int) -> None:
        asked = [Request(id=f"r{n}", model="m", prompt="x", principal=KEY, sampling=Sampling(max_tokens=5)) for n in range(requests)]
        async with aclosing(merged([self.pipeline.run(request) for request in asked])) as events:
            async for _ in events:
                pass

    def check(self, requests: int) -> None:
        entries = self.ledger.entries
        assert len(entries) == requests
        assert sum(len(ended.attempts) for ended in entries) == sum(upstream.calls for upstream in self.upstreams.values())
        assert not any(upstream.open for upstream in self.upstreams.values())
        if (account := self.store._accounts.get("k")) is not None:
            spent = sum((ended.finish.cost_usd or Decimal(0) for ended in entries), Decimal(0))
            assert (account.held, account.held_nano, account.day_nano) == ({}, 0, spent * 10**9)
        assert not any(account.held for account in self.local._accounts.values())


async def leave(way: str, requests: int, *steps: int, deadline_s: float | None = None) -> bool:
    """Cancel the client after so many steps of the loop, and again after so many more. Whether it had everything by then."""
    gateway = Gateway(way, deadline_s)
    client = asyncio.create_task(gateway.read(requests))
    for count in steps:
        for _ in range(count):
            await asyncio.sleep(0)
        client.cancel()
    await asyncio.wait([client])
    while gateway.counters._unsettled or len(asyncio.all_tasks()) > 1:  # what it left behind ends by itself
        await asyncio.sleep(0)
    gateway.check(requests)
    await gateway.counters.close()
    return not client.cancelled()


@pytest.mark.parametrize("requests", [1, 2])
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_at_any_step(way: str, requests: int) -> None:
    step = 1
    while not await leave(way, requests, step):
        step += 1
    assert step > 10


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_is_interrupted_again_while_it_leaves(way: str) -> None:
    for again in (0, 1, 2, 4):
        step = 1
        while not await leave(way, 1, step, again):
            step += 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_deadline_at_any_time(way: str) -> None:
    for microseconds in range(0, 2000, 50):
        await leave(way, 1, deadline_s=microseconds / 1e6)
