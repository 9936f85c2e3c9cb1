"""What a store of answers can do.

A store is trusted with nothing but keeping bytes: what it gives back is checked against its digest and the key that was asked for
(`Entry.sealed`, `opened`), so that a torn, swapped or foreign entry is a miss. Times are unix seconds, so that they mean the same to
every process that shares the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

ENTRY_BYTES = 512  # what an entry takes beside its texts
INDEX_COPY = 2  # a vector is held once more, at twice the width, by the index of its scope
MOST_SEEN = 64  # comparisons remembered of one entry; the oldest go first
SEEN_BYTES = 96  # what one of them takes
SEAL_BYTES = 16
SALT = "\x1f"  # between a tenant and what a request adds to it


class StoreDown(Exception):
    """The store cannot be reached, or cannot be used."""


class Seen(Struct, frozen=True):
    """A comparison made with an entry: how similar a text was, and whether its real answer said the same."""

    similarity: float
    same: bool


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer with what it answers. `vector` is float16, b"" where it is not found by meaning."""

    key: bytes
    scope: bytes = b""
    tenant: str
    model: str
    made_at: float
    until: float
    text: str = ""
    vector: bytes = b""
    answer: bytes  # an `Answer`, written
    seen: tuple[Seen, ...] = ()  # kept beside it: a new comparison does not write the entry anew

    @property
    def size_bytes(self) -> int:
        """What it counts for."""
        text = len(self.text.encode("utf-8", "replace"))
        return len(self.answer) + text + (1 + INDEX_COPY) * len(self.vector) + len(self.seen) * SEEN_BYTES + ENTRY_BYTES


class Row(Struct, frozen=True):
    """A vector of a scope. `number` rises in the order in which they were put."""

    number: int
    key: bytes
    vector: bytes


class Part(Struct, frozen=True, kw_only=True):
    """Which entries: those that fit all that is set; None: any. A tenant's are also those of its salts."""

    tenant: str | None = None
    model: str | None = None
    scope: bytes | None = None

    def holds(self, entry: Entry) -> bool:
        wanted = ((self.tenant, unsalted(entry.tenant)), (self.model, entry.model), (self.scope, entry.scope))
        return all(want is None or want == has for want, has in wanted)


class Held(Struct, frozen=True, kw_only=True):
    """How much a store holds."""

    entries: int
    bytes: int
    by_meaning: int = 0  # of the entries, those with a vector


class Bounds(Struct, frozen=True):
    """The most that a store holds; the longest unused go first."""

    max_bytes: int
    max_entries: int


class Store(Protocol):
    """Keeps entries by key. Operations may raise StoreDown, where it cannot be reached."""

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """Those that are there, whole and not too old."""

    async def put(self, entry: Entry) -> tuple[bytes, ...]:
        """Keep it, all or nothing, in the place of an earlier one of its key. Returns the keys of what had to go for it.

        What is larger than the store is not kept and drives nothing out.
        """

    async def rows(self, scope: bytes, after: int) -> list[Row]:
        """The vectors of a scope put after the one of that number."""

    async def note(self, key: bytes, seen: Seen) -> None:
        """Remember a comparison with an entry, as long as the entry lives; nothing where it is gone."""

    async def drop(self, part: Part) -> int:
        """Remove entries, and say how many."""

    async def held(self) -> Held:
        """What there is."""

    async def close(self) -> None:
        """Free connections."""


class _Sealed(Struct, frozen=True, array_like=True):
    seal: bytes
    body: bytes


def unsalted(tenant: str) -> str:
    """Without what a request added to it."""
    return tenant.partition(SALT)[0]


def sealed(entry: Entry) -> bytes:
    """An entry in bytes, without `seen`, with a digest over all of it."""
    body = msgspec.msgpack.encode(msgspec.structs.replace(entry, seen=()))
    return msgspec.msgpack.encode(_Sealed(_seal(body), body))


def opened(data: bytes, key: bytes) -> Entry | None:
    """What was sealed under that key; None for anything else, torn or foreign."""
    try:
        found = msgspec.msgpack.decode(data, type=_Sealed)
        if found.seal != _seal(found.body):
            return None
        entry = msgspec.msgpack.decode(found.body, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return entry if entry.key == key else None


def _seal(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=SEAL_BYTES).digest()
