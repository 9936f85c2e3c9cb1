"""A gateway over a scripted upstream: in this process, and behind a real server on a free port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import pytest
import uvloop
from openai import OpenAI
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from penstock.core.config import ServerSettings
from penstock.gateway.app import build
from penstock.gateway.server import bind, serve
from penstock.meter import MemoryLedger
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.trace import Trace
from penstock.trace.metrics import Metrics
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script


@dataclass(frozen=True)
class Gateway:
    """The application and what is behind it."""

    app: Starlette
    upstream: FakeUpstream
    ledger: MemoryLedger
    settings: ServerSettings
    url: str = "http://gateway"


MakeGateway = Callable[..., Gateway]


@pytest.fixture
def make_gateway() -> MakeGateway:
    """Make an application whose upstream plays the scripts given."""

    def make(*scripts: Script, settings: ServerSettings | None = None, upstream: FakeUpstream | None = None) -> Gateway:
        upstream = upstream or FakeUpstream(*scripts)
        upstreams = {"fake": upstream}
        metrics, ledger = Metrics(CollectorRegistry(), ["fake"]), MemoryLedger()
        router = FixedRouter(routes_by_model(upstreams))
        pipeline = Pipeline(dispatch=Dispatch(upstreams), router=router, ledger=ledger, trace=Trace(metrics))
        settings = settings or ServerSettings(port=0)
        return Gateway(build(pipeline, settings, metrics), upstream, ledger, settings)

    return make


@pytest.fixture
def make_server(make_gateway: MakeGateway) -> Iterator[MakeGateway]:
    """The same, behind a real server; it has stopped when the test is over."""
    with ExitStack() as stack:

        def make(*scripts: Script, settings: ServerSettings | None = None, upstream: FakeUpstream | None = None) -> Gateway:
            return stack.enter_context(_running(make_gateway(*scripts, settings=settings, upstream=upstream)))

        yield make


@pytest.fixture
def make_client(make_server: MakeGateway) -> Iterator[Callable[..., OpenAI]]:
    """The official client, connected to a real server. It never retries."""
    with ExitStack() as stack:

        def make(*scripts: Script) -> OpenAI:
            client = OpenAI(base_url=f"{make_server(*scripts).url}/v1", api_key="none", max_retries=0, timeout=20)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def gateway(make_gateway: MakeGateway) -> Gateway:
    """One with the default script: "Hello, world.", in four pieces."""
    return make_gateway()


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `gateway`, in this process."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url=gateway.url) as client:
        yield client


@contextmanager
def _running(gateway: Gateway) -> Iterator[Gateway]:
    ready = threading.Event()
    bound = bind(gateway.settings)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    stop: list[Callable[[], object]] = []

    async def run() -> None:
        task = asyncio.ensure_future(serve(gateway.app, gateway.settings, bound=bound, on_ready=lambda _: ready.set()))
        stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
        loop = asyncio.get_running_loop()
        await asyncio.wait([task])

    def main() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    if not ready.wait(10):
        raise TimeoutError("the server did not start")
    try:
        yield Gateway(gateway.app, gateway.upstream, gateway.ledger, gateway.settings, url)
    finally:
        stop[0]()
        thread.join(10)
