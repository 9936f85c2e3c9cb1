"""Amazon Bedrock through boto3 (extra `bedrock`): any model that its Converse API serves.

boto3 blocks, so each answer has a thread of its own while it comes. A client that leaves frees the answer at once; the thread
goes with the next event, after `idle_s` at the latest.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from penstock.core.config import UpstreamSettings
from penstock.core.errors import ConfigError, ModelNotFound, NotReady, PenstockError, UpstreamFailed, missing_extra
from penstock.core.types import Event, Health, ModelCard, Request, Route
from penstock.trace import Tab
from penstock.upstream.anthropic_answer import AnthropicReader, Chunk
from penstock.upstream.bedrock_wire import chunks_of, converse, whole_of
from penstock.upstream.listing import Listing, listing, names_of
from penstock.upstream.refusal import Said, status_of, translated

MAX_THREADS = 64  # answers at a time


class BedrockUpstream:
    """`api_key` is "ACCESS_KEY_ID:SECRET_ACCESS_KEY"; without one AWS's own chain of credentials holds."""

    def __init__(self, settings: UpstreamSettings) -> None:
        """Raises MissingExtra, ConfigError."""
        self._name = settings.name
        self._client = _client(settings)
        self._listing = Listing()
        self._settings = settings
        self._closed = False
        self._threads = ThreadPoolExecutor(min(MAX_THREADS, settings.max_connections), thread_name_prefix="bedrock")

    async def start(self) -> None:
        """Take the models from the config: what an account may call, no list says. Raises ConfigError."""
        names = names_of(self._settings)
        if not names:
            raise ConfigError(f"the upstream {self._name!r} names no models", hint='write models = { nova = "amazon.nova-lite-v1:0" }')
        self._listing = listing(self._settings, names)

    def models(self) -> tuple[ModelCard, ...]:
        return self._listing.cards

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        if self._closed:
            raise NotReady(f"the upstream {self._name!r} is closed")
        card = next((card for card in self._listing.cards if card.id == route.model), None)
        if card is None:
            raise ModelNotFound(f"the upstream {self._name!r} has no model {route.model!r}")
        parameters = converse(request, card, self._listing.names[card.id])
        reader = AnthropicReader(self._name, request)
        refused = False
        try:
            call = self._streamed if request.streams else self._whole
            async with aclosing(_threaded(self._threads, lambda: call(parameters))) as together:
                async for chunks in together:
                    for delta in reader.take(chunks):
                        if tab.first_s is None:
                            tab.first_s = time.monotonic()
                        yield delta
            for last in reader.end():
                tab.usage = reader.usage()
                yield last
        except PenstockError:
            refused = not reader.started
            raise
        finally:
            tab.usage = None if refused else reader.usage()

    def health(self) -> Health:
        return Health(state="stopped" if self._closed else "ready")

    async def close(self) -> None:
        """Close every connection; answers still under way break off."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _streamed(self, parameters: Mapping[str, object]) -> Iterator[list[Chunk]]:
        """Runs in a thread, as does `_whole`."""
        with _Translating(self._name):
            stream = self._client.converse_stream(**parameters)["stream"]
            try:
                for event in stream:
                    if self._closed:
                        raise UpstreamFailed(f"the upstream {self._name!r} was closed")
                    yield chunks_of(event)
            finally:
                stream.close()

    def _whole(self, parameters: Mapping[str, object]) -> Iterator[list[Chunk]]:
        with _Translating(self._name):
            yield [whole_of(self._client.converse(**parameters))]


class _Translating:
    """Errors of boto3 as ours."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
        from urllib3.exceptions import HTTPError

        if isinstance(error, ClientError):
            said = Said(error.response["Error"].get("Message", ""), error.response["Error"].get("Code", "").lower())
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            raise translated(self._upstream, status if status and status >= 400 else status_of(said.kind), said) from error
        if isinstance(error, NoCredentialsError):
            raise UpstreamFailed(f"the upstream {self._upstream!r} has no AWS credentials", hint="tell whoever runs this server") from error
        if isinstance(error, BotoCoreError | HTTPError | OSError):
            raise UpstreamFailed(f"the upstream {self._upstream!r} broke off or cannot be reached: {type(error).__name__}") from error


def _client(settings: UpstreamSettings) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise missing_extra(f"the upstream {settings.name!r} of kind bedrock", "bedrock") from None
    if not settings.region:
        raise ConfigError(f"the upstream {settings.name!r} has no region", hint='write region = "us-east-1"')
    config = Config(
        connect_timeout=settings.connect_s,
        read_timeout=settings.idle_s,
        max_pool_connections=min(MAX_THREADS, settings.max_connections),
        retries={"total_max_attempts": 1},  # whoever calls the upstreams tries again
    )
    identity, _, secret = settings.api_key.partition(":")
    keys = {"aws_access_key_id": identity, "aws_secret_access_key": secret} if secret else {}
    return boto3.session.Session().client(
        "bedrock-runtime", region_name=settings.region, endpoint_url=settings.url or None, config=config, **keys
    )


async def _threaded(threads: ThreadPoolExecutor, source: Callable[[], Iterator[list[Chunk]]]) -> AsyncGenerator[list[Chunk], None]:
    """What `source` gives, iterated in a thread."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[list[Chunk] | Exception | None] = asyncio.Queue()
    left = threading.Event()

    def put(item: list[Chunk] | Exception | None) -> None:
        if not left.is_set():
            loop.call_soon_threadsafe(queue.put_nowait, item)

    def run() -> None:
        try:
            for chunks in source():
                if left.is_set():
                    return
                put(chunks)
            put(None)
        except Exception as error:  # noqa: BLE001 - raised again on the event loop
            put(error)

    running = threads.submit(run)
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        left.set()
        running.cancel()  # one that still waits for its thread is never asked, nor paid
