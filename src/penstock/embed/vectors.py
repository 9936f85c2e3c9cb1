"""Vectors of texts, each computed once and off the event loop.

One `TextVectors` is shared by the cache, the router and the guards: what one of them asked for is there for the next. One thread
computes; what waits for it is computed together, and a call has one part of its texts in the queue at a time, so that a long one
does not keep the others waiting. A caller that was cancelled is passed over.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from msgspec import Struct

from penstock.core.errors import NotReady, missing_extra
from penstock.embed.minilm import Floats, MiniLM, find_model
from penstock.embed.static import STATIC_FOLDER, StaticTable

Which = Literal["auto", "minilm", "static"]
Key = bytes  # digest of a text

MOST_TEXTS = 32  # computed in one go
MAX_BYTES = 16 * 2**20  # of vectors that are kept
ENTRY_BYTES = 256  # of a kept vector, besides its numbers
MINILM_DIMENSIONS = 384


class Encoder(Protocol):
    """A model that is loaded. It computes for long: call it in a thread."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """[len(texts), dimensions], each row of length one, whatever the length of its text."""
        ...


class Source(Struct, frozen=True):
    """An encoder that is loaded when it is first needed."""

    name: str
    dimensions: int
    files: tuple[Path, ...]  # all that its vectors depend on
    load: Callable[[], Encoder]


class _Waiting(Struct, frozen=True):
    """Texts without vectors, and who waits for them."""

    texts: dict[Key, str]
    rows: asyncio.Future[dict[Key, Floats]]


def open_vectors(which: Which) -> TextVectors:
    """`auto` is MiniLM where the extra `embeddings` is installed and else the static table. Nothing is read yet.

    Raises MissingExtra for "minilm" without the extra.
    """
    folder = find_model() if which != "static" else None
    if folder is None:
        if which == "minilm":
            raise missing_extra("the encoder 'minilm'", "embeddings")
        files = tuple(STATIC_FOLDER / name for name in StaticTable.FILES)
        return TextVectors(Source("static-minilm", StaticTable.DIMENSIONS, files, lambda: StaticTable(STATIC_FOLDER)))
    files = tuple(folder / name for name in ("config.json", "model.safetensors", "sentence_bert_config.json", "tokenizer.json"))
    return TextVectors(Source("all-minilm-l6-v2", MINILM_DIMENSIONS, files, lambda: MiniLM(folder)))


class TextVectors:
    """The vectors of one encoder. `max_bytes` bounds those that are kept for texts that come again."""

    def __init__(self, source: Source, max_bytes: int = MAX_BYTES) -> None:
        self.name = source.name
        self.dimensions = source.dimensions
        self._source = source
        self._kept = _Kept(max_bytes)
        self._loading = threading.Lock()
        self._loaded: Encoder | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vectors")
        self._queue: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    @cached_property
    def digest(self) -> str:
        """Which encoder made a vector: of its name and the contents of its files, read whole once. Raises OSError."""
        sha = hashlib.sha256(self.name.encode())
        for path in self._source.files:
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
        return sha.hexdigest()[:32]

    async def of(self, texts: Sequence[str]) -> Floats:
        """[len(texts), dimensions], each row of length one. Raises NotReady once closed, LoadError."""
        keyed = [_keyed(text) for text in texts]
        rows = self._kept.get(key for key, _ in keyed)
        for part in _parts(keyed, rows):
            rows.update(await self._computed(part))
        return self._stacked(keyed, rows)

    def now(self, texts: Sequence[str]) -> Floats:
        """The same, computed in the thread that calls. Raises LoadError."""
        keyed = [_keyed(text) for text in texts]
        rows = self._kept.get(key for key, _ in keyed)
        for part in _parts(keyed, rows):
            rows.update(self._encoded(part))
        return self._stacked(keyed, rows)

    async def close(self) -> None:
        """Stop computing; what waits ends in NotReady."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _computed(self, texts: dict[Key, str]) -> dict[Key, Floats]:
        if self._closed:
            raise self._stopped()
        waiting = _Waiting(texts, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await waiting.rows

    async def _work(self) -> None:
        """Compute until nothing waits."""
        while taken := self._take():
            texts = {key: text for waiting in taken for key, text in waiting.texts.items()}
            try:
                if self._closed:
                    raise self._stopped()
                rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._encoded, texts)
            except Exception as error:  # noqa: BLE001 (raised again where the vectors are waited for)
                for waiting in taken:
                    if not waiting.rows.done():
                        waiting.rows.set_exception(error)
                continue
            for waiting in taken:
                if not waiting.rows.done():
                    waiting.rows.set_result(rows)
        self._worker = None

    def _take(self) -> list[_Waiting]:
        """What is computed next; nothing where nobody waits any more."""
        taken: list[_Waiting] = []
        count = 0
        while self._queue and (not taken or count + len(self._queue[0].texts) <= MOST_TEXTS):
            waiting = self._queue.popleft()
            if not waiting.rows.done():  # else its caller has left
                taken.append(waiting)
                count += len(waiting.texts)
        return taken

    def _encoded(self, texts: dict[Key, str]) -> dict[Key, Floats]:
        """Their vectors: those that another caller asked for meanwhile are there already."""
        rows = self._kept.get(texts)
        missing = [key for key in texts if key not in rows]
        if missing:
            made = self._encoder().encode([texts[key] for key in missing])
            rows.update(self._kept.put(zip(missing, made, strict=True)))
        return rows

    def _encoder(self) -> Encoder:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._source.load()
            return self._loaded

    def _stacked(self, keyed: list[tuple[Key, str]], rows: Mapping[Key, Floats]) -> Floats:
        return np.stack([rows[key] for key, _ in keyed]) if keyed else np.empty((0, self.dimensions), dtype=np.float32)

    def _stopped(self) -> NotReady:
        return NotReady(f"the encoder {self.name!r} is stopped")


class _Kept:
    """The vectors used last, by their text's digest. Safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rows: OrderedDict[Key, Floats] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, keys: Iterable[Key]) -> dict[Key, Floats]:
        """Those that are there."""
        found: dict[Key, Floats] = {}
        with self._lock:
            for key in keys:
                if (row := self._rows.get(key)) is not None:
                    self._rows.move_to_end(key)
                    found[key] = row
        return found

    def put(self, made: Iterable[tuple[Key, Floats]]) -> dict[Key, Floats]:
        """Keep copies, so that a row holds no batch in memory; the ones used longest ago leave."""
        rows = {key: row.copy() for key, row in made}
        with self._lock:
            for key, row in rows.items():
                if key not in self._rows:
                    self._bytes += row.nbytes + ENTRY_BYTES
                self._rows[key] = row
            while self._bytes > self._max_bytes:
                _, oldest = self._rows.popitem(last=False)
                self._bytes -= oldest.nbytes + ENTRY_BYTES
        return rows


def _keyed(text: str) -> tuple[Key, str]:
    """A text as tokenizers take it (a lone surrogate is not UTF-8), and its digest."""
    data = text.encode("utf-8", "replace")
    return hashlib.blake2b(data, digest_size=16).digest(), data.decode("utf-8")


def _parts(keyed: Iterable[tuple[Key, str]], there: Mapping[Key, Floats]) -> Iterator[dict[Key, str]]:
    """The texts that are not there, each once, few at a time."""
    missing = iter({key: text for key, text in keyed if key not in there}.items())
    while part := dict(islice(missing, MOST_TEXTS)):
        yield part
