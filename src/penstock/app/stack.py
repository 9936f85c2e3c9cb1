"""The object graph: engines, one upstream for each, the pipeline over them, and the metrics that watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from msgspec import Struct
from prometheus_client import CollectorRegistry

from penstock.core.config import ModelSettings
from penstock.core.settings import Settings
from penstock.core.types import ModelCard
from penstock.engine.client import EngineClient
from penstock.engine.messages import EngineInfo, Loading
from penstock.files import locate
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.text import load_chat_template, load_tokenizer
from penstock.trace import Trace
from penstock.trace.logs import log_requests
from penstock.trace.metrics import Metrics
from penstock.upstream import Dispatch, Upstream, routes_by_model
from penstock.upstream.local import LocalUpstream

LoadProgress = Callable[[str, Loading], None]  # called with the model's name, on the event loop


class Served(Struct, frozen=True, kw_only=True):
    """One model as it was loaded."""

    info: EngineInfo
    has_template: bool  # whether it can be sent messages


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Everything that serves, running. Closing the pipeline stops the engines."""

    pipeline: Pipeline
    metrics: Metrics
    served: dict[str, Served]  # by the name that clients ask for


async def build(settings: Settings, progress: LoadProgress, *, show_downloads: bool = True) -> Stack:
    """Load every model, one after the other so that each plans with the memory that the earlier ones left.

    Raises LoadError, MemoryPlanError or EngineDied; what was already started is stopped then.
    """
    metrics = Metrics(CollectorRegistry(), [model.name for model in settings.models])
    upstreams: dict[str, Upstream] = {}
    served: dict[str, Served] = {}
    async with AsyncExitStack() as started:
        for model in settings.models:
            upstream, served[model.name] = await _load(model, metrics, progress, show_downloads)
            started.push_async_callback(upstream.close)
            upstreams[model.name] = upstream
        started.pop_all()
    router = FixedRouter(routes_by_model(upstreams))
    trace = Trace(metrics, log_requests)
    pipeline = Pipeline(dispatch=Dispatch(upstreams, trace=trace), router=router, trace=trace, deadline_s=settings.server.deadline_s)
    return Stack(pipeline=pipeline, metrics=metrics, served=served)


async def _load(model: ModelSettings, metrics: Metrics, progress: LoadProgress, show_downloads: bool) -> tuple[LocalUpstream, Served]:
    files = await asyncio.to_thread(locate, model.model, progress=show_downloads)
    tokenizer = await asyncio.to_thread(load_tokenizer, files)
    template = load_chat_template(files, tokenizer)
    engine = EngineClient(model.model, model.engine)
    engine.on_step(lambda stats: metrics.step(model.name, stats))
    info = await engine.start(lambda loading: progress(model.name, loading))
    card = ModelCard(id=model.name, created=int(time.time()), root=model.model)
    return LocalUpstream(engine, tokenizer, template, card), Served(info=info, has_template=template is not None)
