"""The upstream that makes vectors: all-MiniLM-L6-v2, beside the event loop.

The model comes with the extra `embeddings` and is loaded at the first request, in the one thread that computes it. A request
is cut into batches of texts of like length, and has one of them in the queue at a time: so others have their turn, and a client
that has left is noticed. Small batches that wait together are computed as one.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from msgspec import Struct

from penstock.core.config import EmbeddingSettings
from penstock.core.errors import ContextTooLong, InvalidRequest, NotReady, Overloaded, missing_extra
from penstock.core.types import Event, Finish, Health, ModelCard, Request, Route, Usage, Vectors
from penstock.embed.minilm import BATCH_TOKENS, Floats, Ids, MiniLM, batches, find_model, unit
from penstock.trace import Tab
from penstock.upstream.prompt import check_token_ids

MAX_WAITING = 256  # requests under way; one more is told to come back
RETRY_AFTER_S = 1.0

T = TypeVar("T")


class _Batch(Struct, frozen=True):
    """Texts that wait, and who waits for their vectors."""

    items: list[Ids]
    vectors: asyncio.Future[Floats]


def find_embedder(settings: EmbeddingSettings) -> Embedder | None:
    """The embedding model, where the settings want it and its package is there. Raises MissingExtra where they insist."""
    folder = find_model() if settings.enabled else None
    if folder is None:
        if settings.enabled is True:
            raise missing_extra("the embedding model", "embeddings")
        return None
    return Embedder(folder, settings.name)


class Embedder:
    """Serves one model under the given name. Nothing is read of `folder` before the first request."""

    def __init__(self, folder: Path, name: str) -> None:
        self._card = ModelCard(
            id=name, created=int(time.time()), root="sentence-transformers/all-MiniLM-L6-v2", embeds=True, max_model_len=256
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._load = functools.cache(lambda: MiniLM(folder))
        self._waiting = 0
        self._queue: deque[_Batch] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    def models(self) -> tuple[ModelCard, ...]:
        return (self._card,)

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        """One `Vectors`. Raises InvalidRequest for what is not `inputs`, ContextTooLong, Overloaded."""
        if request.inputs is None:
            raise InvalidRequest(f"{request.model!r} makes vectors, not answers", hint="send its input to /v1/embeddings", param="model")
        if self._waiting >= MAX_WAITING:
            hint = "try again shortly"
            raise Overloaded(f"{MAX_WAITING} requests for vectors are under way", hint=hint, retry_after_s=RETRY_AFTER_S)
        self._waiting += 1
        try:
            items = await self._run(functools.partial(self._tokens, request))
            vectors = await self._embed(items, tab)
        finally:
            self._waiting -= 1
        usage = tab.usage or Usage()
        yield Vectors(vectors=tuple(map(tuple, _cut(vectors, request.dimensions).tolist())))
        yield Finish(reason="stop", usage=usage)

    def health(self) -> Health:
        return Health(state="stopped") if self._closed else Health(state="ready")

    async def close(self) -> None:
        """Stop computing; what waits ends in NotReady."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _embed(self, items: Sequence[Ids], tab: Tab) -> Floats:
        """[len(items), dimensions]; `tab.usage` grows with each batch."""
        rows: dict[int, Floats] = {}
        for batch in batches(items):
            vectors = await self._computed([items[place] for place in batch])
            rows.update(zip(batch, vectors, strict=True))
            tab.usage = Usage(prompt_tokens=sum(len(items[place]) for place in rows))
        return np.stack([rows[place] for place in range(len(items))])

    async def _computed(self, items: list[Ids]) -> Floats:
        batch = _Batch(items, asyncio.get_running_loop().create_future())
        self._queue.append(batch)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await batch.vectors

    async def _work(self) -> None:
        """Compute until nothing waits."""
        while taken := self._take():
            items = [item for batch in taken for item in batch.items]
            try:
                vectors = await self._run(functools.partial(self._compute, items))
            except Exception as error:  # noqa: BLE001 (raised again where the vectors are waited for)
                for batch in taken:
                    if not batch.vectors.done():
                        batch.vectors.set_exception(error)
                continue
            for batch in taken:
                if not batch.vectors.done():
                    batch.vectors.set_result(vectors[: len(batch.items)])
                vectors = vectors[len(batch.items) :]
        self._worker = None

    def _take(self) -> list[_Batch]:
        """The batches that are computed next, together as large as one may be; none where nobody waits any more."""
        taken: list[_Batch] = []
        longest, count = 0, 0
        while self._queue:
            batch = self._queue[0]
            longest, count = max(longest, *map(len, batch.items)), count + len(batch.items)
            if taken and longest * count > BATCH_TOKENS:
                break
            self._queue.popleft()
            if batch.vectors.done():  # its client has left
                count -= len(batch.items)
            else:
                taken.append(batch)
        return taken

    async def _run(self, work: Callable[[], T]) -> T:
        def unless_closed() -> T:
            if self._closed:
                raise self._stopped()
            return work()

        if self._closed:
            raise self._stopped()
        return await asyncio.get_running_loop().run_in_executor(self._thread, unless_closed)

    def _stopped(self) -> NotReady:
        return NotReady(f"the model {self._card.id!r} is stopped")

    def _compute(self, batch: Sequence[Ids]) -> Floats:
        return self._load().embed(batch)

    def _tokens(self, request: Request) -> list[Ids]:
        """The tokens of each input: a text's own, ids as they were sent."""
        model = self._load()
        _check_dimensions(request, model.dimensions)
        given = request.inputs or ()
        texts = [item for item in given if isinstance(item, str)]
        items = model.tokenize(texts) if texts else [item for item in given if isinstance(item, tuple)]
        for place, item in enumerate(items):
            check_token_ids(item, model.vocab_size, param="input")
            if not item:
                raise InvalidRequest(f"input {place} is empty", hint="leave it out", param="input")
            if len(item) > model.max_tokens:
                hint = "split it into shorter texts"
                raise ContextTooLong(f"input {place} has {len(item)} tokens, the model reads {model.max_tokens}", hint=hint, param="input")
        return items


def _check_dimensions(request: Request, most: int) -> None:
    wanted = request.dimensions
    if wanted is not None and not 1 <= wanted <= most:
        hint = f"ask for at most {most}, or leave dimensions out"
        raise InvalidRequest(f"dimensions is {wanted}, vectors of {request.model!r} have {most}", hint=hint, param="dimensions")


def _cut(vectors: Floats, dimensions: int | None) -> Floats:
    """The first dimensions, scaled to length one again."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    return unit(vectors[:, :dimensions])
