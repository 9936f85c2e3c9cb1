"""Nobody gets an answer of another tenant, model, system prompt, tool, sampling, earlier turn or policy: over every store, by both tiers.

The judgement of the semantic tier is replaced by one that serves whatever is nearest, so that only the partition is left to hold.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing

import pytest
from cached import STORES, Foreseen, WordVectors, open_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import redis_server

from penstock.cache import AnswerCache
from penstock.cache.index import VectorIndex
from penstock.cache.semantic import SemanticTier
from penstock.cache.store import Store
from penstock.core.config import CacheSettings
from penstock.core.types import Delta, Event, Finish, Message, ModelCard, Principal, Request, Route, Sampling, Tool
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace import Tab
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream

PREFIXES = (f"partition-{number}:{{t}}" for number in itertools.count())
Drawn = tuple[object, ...]
TENANTS = ("", "a", "b", "a\x00", "b:model", "ünïcode")
TEXTS = ("what is the capital of France", "what is the capital of france please", "how do plants grow", "x")
SYSTEMS = ("", "Be brief.", "Be brief. what is the capital of France")
TOOLS = ((), (), (), (Tool(name="f"),), (Tool(name="f", description="g"),))
SAMPLINGS = (Sampling(temperature=0.0), Sampling(temperature=0.0, max_tokens=50), Sampling(temperature=0.2, seed=1))
SCOPES = (None, ("fake", "other"), ("fake", "other", "third"))

CHOICES = (TENANTS, SYSTEMS, TOOLS, SAMPLINGS, SCOPES, ("fake", "other"), (0, 1), ("1", "2"))


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[Drawn, str]]:
    """Requests of some partition, and of others that differ from it in one thing each."""
    places = [draw(st.integers(0, len(choices) - 1)) for choices in CHOICES]
    first = [choices[place] for choices, place in zip(CHOICES, places, strict=True)]
    near = [tuple(first)]
    for changed, (choices, place) in enumerate(zip(CHOICES, places, strict=True)):
        near.append((*first[:changed], choices[(place + 1) % len(choices)], *first[changed + 1 :]))
    return draw(st.lists(st.tuples(st.sampled_from(near), st.sampled_from(TEXTS)), min_size=20, max_size=40))


def request_of(number: int, drawn: Drawn, text: str) -> Request:
    tenant, system, tools, sampling, models, model, turns, _ = drawn
    earlier = (Message(role="user", content="Hi"), Message(role="assistant", content="Ho")) if turns else ()
    begin = (Message(role="system", content=str(system)),) if system else ()
    return Request(
        id=str(number),
        model=str(model),
        tenant=str(tenant),
        messages=(*begin, *earlier, Message(role="user", content=text)),
        tools=tools,  # type: ignore[arg-type]
        sampling=sampling,  # type: ignore[arg-type]
        principal=Principal(models=models, key_id=f"key {number}"),  # type: ignore[arg-type]
    )


class Telling(FakeUpstream):
    """Answers with everything that must not be mixed up, and with the text."""

    def __init__(self, policy: str) -> None:
        super().__init__()
        self.policy = policy

    def models(self) -> tuple[ModelCard, ...]:
        return (ModelCard(id="fake", created=0), ModelCard(id="other", created=0))

    def says(self, request: Request, text: str) -> str:
        messages = request.messages or ()
        partition = (request.tenant, request.model, messages[:-1], request.tools, request.sampling, request.principal.models, self.policy)
        return f"{partition} {text}"

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        yield Delta(text=self.says(request, (request.messages or ())[-1].content))
        yield Finish(reason="stop")


def cache_over(store: Store, policy: str) -> AnswerCache:
    chosen = CacheSettings(exact="on", semantic="on", policy=policy)
    vectors = WordVectors()
    index = VectorIndex(store.rows, vectors.dimensions, chosen.max_entries)
    tier = SemanticTier(store, index, vectors, lambda: Foreseen(serve=-2.0, attempt=-2.0), policy=policy)  # type: ignore[arg-type,return-value]
    return AnswerCache(chosen, store, tier, lambda: 4e9)


async def answered(cache: AnswerCache, upstream: Telling, request: Request) -> tuple[str, str]:
    pipeline = Pipeline(dispatch=Dispatch({"here": upstream}), router=FixedRouter(routes_by_model({"here": upstream})), cache=cache)
    progress = pipeline.begin(request)
    async with aclosing(pipeline.run(request, progress)) as events:
        text = "".join([event.text async for event in events if isinstance(event, Delta)])
    while cache._afterwards:
        await asyncio.wait(cache._afterwards)
    return progress.cache, text


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis"), durable=False) as server:
        yield server.url


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.feature("semantic cache", "exact cache", "keys")
def test_no_answer_crosses_a_partition(kind: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""
    hits = {"exact": 0, "meaning": 0}

    @given(streams())
    @settings(max_examples=int(os.environ.get("PENSTOCK_CACHE_EXAMPLES", "10")), deadline=None, suppress_health_check=list(HealthCheck))
    def campaign(stream: list[tuple[Drawn, str]]) -> None:
        folder, prefix = tmp_path_factory.mktemp("store"), next(PREFIXES)

        async def scenario() -> None:
            async with AsyncExitStack() as opened:
                store = await opened.enter_async_context(open_store(kind, folder, url, lambda: 4e9, prefix=prefix))
                caches = {policy: cache_over(store, policy) for policy in "12"}
                for cache in caches.values():
                    opened.push_async_callback(cache._semantic.close)  # type: ignore[union-attr]  # the store is closed once
                for number, (drawn, text) in enumerate(stream):
                    asked, policy = request_of(number, drawn, text), str(drawn[-1])
                    upstream = Telling(policy)
                    state, answer = await answered(caches[policy], upstream, asked)
                    assert answer in [upstream.says(asked, other) for other in TEXTS]
                    if state == "hit":
                        hits["exact" if answer == upstream.says(asked, text) else "meaning"] += 1

        asyncio.run(scenario())

    campaign()
    assert min(hits.values()) > 0, "nothing was given again, so nothing was shown"
