"""The object graph: engines and other upstreams, the books, the pipeline over them, and whoever watches it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from msgspec import Struct
from prometheus_client import CollectorRegistry

from penstock.app.books import Books, data_folder, open_books
from penstock.app.cores import share_cores, usable_cores
from penstock.app.costs import DispatchCosts
from penstock.cache import Cache, make_cache
from penstock.core.config import ModelSettings
from penstock.core.errors import ConfigError
from penstock.core.settings import Settings
from penstock.core.types import ModelCard
from penstock.embed import TextVectors, open_vectors
from penstock.engine.client import EngineClient
from penstock.engine.messages import EngineInfo, EngineStats, Loading
from penstock.files import locate
from penstock.gateway.auth import Auth
from penstock.gateway.page import Page, login_page
from penstock.guard import open_guard
from penstock.pipeline import Pipeline
from penstock.router import make_router
from penstock.router.confidence import calibrations
from penstock.text import load_chat_template, load_tokenizer
from penstock.trace import Observer, Trace
from penstock.trace.logs import JSONLines, RequestLog
from penstock.trace.metrics import Metrics
from penstock.trace.window import Window
from penstock.upstream import Cascade, Dispatch, Upstream, Vote, embedding_models, routes_by_model
from penstock.upstream.embedder import find_embedder
from penstock.upstream.local import LocalUpstream
from penstock.upstream.make import make_upstream

LoadProgress = Callable[[str, Loading], None]  # called with the model's name, on the event loop
OnStep = Callable[[str, EngineStats], None]


class Served(Struct, frozen=True, kw_only=True):
    """One model as it was loaded."""

    info: EngineInfo
    has_template: bool  # whether it can be sent messages


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Everything that serves, running. Closing it stops the engines."""

    pipeline: Pipeline
    metrics: Metrics
    auth: Auth
    page: Page | None
    served: dict[str, Served]  # engines of our own, by the name that clients ask for
    opened: AsyncExitStack

    async def close(self) -> None:
        """Let go of everything, in the order in which it hangs together."""
        await self.opened.aclose()


async def build(settings: Settings, progress: LoadProgress, *, show_downloads: bool = True, lines: JSONLines | None = None) -> Stack:
    """Load every model, one after the other so that each plans with the memory that the earlier ones left; reach every upstream.

    `lines` takes the log's lines of requests; None: the logger does.
    Raises ConfigError, LoadError, MissingExtra, MemoryPlanError, DatabaseDown or EngineDied; what was already started is
    stopped then.
    """
    async with AsyncExitStack() as opened:
        books = await open_books(settings, opened)
        window = Window(settings.page) if settings.page.enabled else None
        metrics = Metrics(CollectorRegistry(), [model.name for model in settings.models])
        log = RequestLog(log_text=settings.trace.log_prompts, lines=lines)
        trace = Trace(*_watchers(settings, metrics, window, log, opened), keep_text=settings.trace.log_prompts or settings.page.keep_text)
        steps: list[OnStep] = [metrics.step, *([window.step] if window else ())]
        upstreams, served = await _upstreams(settings, steps, progress, opened, show_downloads)
        vectors = _vectors(settings, opened)
        cache = make_cache(settings.cache, data_folder(settings), vectors)
        opened.push_async_callback(cache.close)
        guard = await open_guard(settings.guard, vectors)
        pipeline = replace(_pipeline(settings, books, upstreams, trace, cache, vectors), guard=guard)
        metrics.serve(card.id for card in pipeline.models())
        page = Page(pipeline, window, settings.page) if window else None
        auth = Auth(books.ring, settings.server, is_open=settings.keys.open, login_page=login_page() if page else None)
        return Stack(pipeline=pipeline, metrics=metrics, auth=auth, page=page, served=served, opened=opened.pop_all())


def _watchers(settings: Settings, metrics: Metrics, window: Window | None, log: RequestLog, opened: AsyncExitStack) -> Iterator[Observer]:
    yield metrics
    yield log
    if window is not None:
        yield window
    if settings.trace.otlp:
        from penstock.trace.otel import Spans

        spans = Spans(settings.trace)
        opened.push_async_callback(asyncio.to_thread, spans.close)
        yield spans


def _vectors(settings: Settings, opened: AsyncExitStack) -> Callable[[], TextVectors]:
    """The vectors of texts, one for all who want some, made for the first of them; `opened` closes it."""

    @functools.cache
    def shared() -> TextVectors:
        vectors = open_vectors(settings.cache.encoder)
        opened.push_async_callback(vectors.close)
        return vectors

    return shared


def _pipeline(
    settings: Settings, books: Books, upstreams: dict[str, Upstream], trace: Trace, cache: Cache, vectors: Callable[[], TextVectors]
) -> Pipeline:
    cards = [card for upstream in upstreams.values() for card in upstream.models()]
    known = calibrations(settings.router, {card.id: card.root or card.id for card in cards})
    dispatch = Cascade(Vote(Dispatch(upstreams, settings.dispatch, trace=trace)), known)
    costs = DispatchCosts(dispatch, books.pricing)
    return Pipeline(
        dispatch=dispatch,
        router=make_router(settings.router, routes_by_model(upstreams), embedding_models(upstreams), vectors, costs, known),
        admission=books.limiter,
        cache=cache,
        pricing=books.pricing,
        ledger=books.ledger,
        trace=trace,
        deadline_s=settings.server.deadline_s,
    )


async def _upstreams(
    settings: Settings, steps: list[OnStep], progress: LoadProgress, opened: AsyncExitStack, show_downloads: bool
) -> tuple[dict[str, Upstream], dict[str, Served]]:
    """By name; `opened` closes them."""
    upstreams: dict[str, Upstream] = {}
    served: dict[str, Served] = {}

    def add(name: str, upstream: Upstream) -> None:
        upstreams[name] = upstream
        opened.push_async_callback(upstream.close)

    for model in share_cores(settings.models, usable_cores()):
        upstream, served[model.name] = await _load(model, steps, progress, show_downloads)
        add(model.name, upstream)
    for other in settings.upstreams:
        add(other.name, await make_upstream(other))
    if (embedder := find_embedder(settings.embeddings)) is not None:
        if settings.embeddings.name in upstreams:
            raise ConfigError(f"two models are served as {settings.embeddings.name!r}", hint="set embeddings.name to another")
        add(settings.embeddings.name, embedder)
    return upstreams, served


async def _load(model: ModelSettings, steps: list[OnStep], progress: LoadProgress, show_downloads: bool) -> tuple[LocalUpstream, Served]:
    files = await asyncio.to_thread(locate, model.model, progress=show_downloads)
    tokenizer = await asyncio.to_thread(load_tokenizer, files)
    template = load_chat_template(files, tokenizer)
    engine = EngineClient(model.model, model.engine)
    for step in steps:
        engine.on_step(lambda stats, step=step: step(model.name, stats))  # type: ignore[misc]
    info = await engine.start(lambda loading: progress(model.name, loading))
    card = ModelCard(id=model.name, created=int(time.time()), root=model.model)
    return LocalUpstream(engine, tokenizer, template, card), Served(info=info, has_template=template is not None)
