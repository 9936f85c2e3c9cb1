"""The settings of router, dispatch, cache and embeddings reach the parts that serve."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from fakes.openai import openai_fake
from fakes.server import Answer
from msgspec.structs import replace

from penstock.app.stack import Stack, build
from penstock.core.config import (
    CacheSettings,
    DispatchSettings,
    EmbeddingSettings,
    LedgerSettings,
    RouterSettings,
    ServerSettings,
    UpstreamSettings,
)
from penstock.core.settings import Settings
from penstock.core.types import Event, Message, Request, Route, Sampling, Vectors
from penstock.embed.minilm import find_model
from penstock.trace import Progress

HELLO = Request(id="r", model="auto", messages=(Message(role="user", content="Hi"),), sampling=Sampling(temperature=0.0))


@asynccontextmanager
async def stack(folder: Path, *upstreams: UpstreamSettings, **rooms: object) -> AsyncIterator[Stack]:
    server, ledger = ServerSettings(data_dir=str(folder)), LedgerSettings(database="memory")
    built = await build(Settings(server=server, ledger=ledger, upstreams=upstreams, **rooms), lambda *_: None)
    try:
        yield built
    finally:
        await built.close()


async def ask(stack: Stack, request: Request) -> tuple[Progress, list[Event]]:
    progress = stack.pipeline.begin(request)
    async with aclosing(stack.pipeline.run(request, progress)) as events:
        return progress, [event async for event in events]


@pytest.mark.feature("retries", "aliases", "exact cache")
async def test_upstreams_aliases_retries_and_cache(tmp_path: Path) -> None:
    async with openai_fake(Answer(status=500, body="no")) as broken, openai_fake() as works:
        there = (UpstreamSettings(name="a", url=broken.url, models=["m"]), UpstreamSettings(name="b", url=works.url, models={"m": "M"}))
        rooms = {
            "router": RouterSettings(aliases={"fast": "m"}),
            "dispatch": DispatchSettings(attempts=2),
            "cache": CacheSettings(exact="on"),
            "embeddings": EmbeddingSettings(enabled=False),
        }
        async with stack(tmp_path, *there, **rooms) as built:
            assert [card.id for card in built.pipeline.models()] == ["m", "auto", "fast"]
            first, _ = await ask(built, replace(HELLO, model="fast"))
            again, _ = await ask(built, replace(HELLO, model="fast"))
    assert first.ended is not None
    assert [attempt.route for attempt in first.ended.attempts] == [Route(upstream="a", model="m"), Route(upstream="b", model="m")]
    assert (first.cache, again.cache) == ("miss", "hit")
    assert works.body["model"] == "M"


@pytest.mark.feature("embeddings")
async def test_the_embedding_model_is_served_beside_the_others(tmp_path: Path) -> None:
    if find_model() is None:
        pytest.skip("the extra `embeddings` is not installed")
    async with stack(tmp_path, embeddings=EmbeddingSettings(enabled=True, name="vectors")) as built:
        progress, events = await ask(built, Request(id="r", model="vectors", inputs=("Hi",)))
    assert isinstance(events[0], Vectors)
    assert progress.ended is not None
    assert [(attempt.purpose, attempt.usage.prompt_tokens) for attempt in progress.ended.attempts] == [("embedding", 3)]
