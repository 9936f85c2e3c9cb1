"""Answers in Redis, shared by any number of gateways. Whoever changes something does it in one Lua script, which Redis runs as one step.

    P:e:KEY  entry, sealed         P:m  hash   key → size, by meaning, scope      P:u  sorted set  key → last use
    P:v:KEY  vector                P:s:SCOPE   sorted set  key → number           P:x  sorted set  key → end
    P:o:KEY  comparisons           P:t  hash   sums: bytes, by_meaning, number

Entries, vectors and comparisons also end by Redis' own clock, a while after their time. All names share a hash tag and so a cluster's
node. What Redis forgets, in a crash say, is a miss; an entry is given only as it was sealed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from penstock.cache.store.protocol import MOST_SEEN, Bounds, Entry, Held, Part, Row, Seen, StoreDown, opened, sealed
from penstock.core.errors import ConfigError, missing_extra

T = TypeVar("T")

CONNECTIONS = 16
PREFIX = "penstock:{answers}"  # the tag keeps all on one node
TOGETHER = 500  # keys asked for, or removed, at a time
MOST_GONE = 1000  # entries that one put drives out


class RedisStore:
    """Connects when first used. `clock` is in unix seconds.

    Raises MissingExtra without the package, ConfigError for an address that it does not understand.
    """

    def __init__(
        self, url: str, bounds: Bounds, clock: Callable[[], float] = time.time, *, timeout_s: float = 0.25, prefix: str = PREFIX
    ) -> None:
        try:
            from redis import asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError:
            raise missing_extra("a cache in Redis", "redis") from None
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ConfigError(f"cache.store is no address of a Redis: {error}", hint="redis://HOST:PORT/NUMBER") from None
        self._redis: Any = redis.Redis.from_pool(pool)
        self._errors = (RedisError, OSError)
        self._bounds = bounds
        self._clock = clock
        self._prefix = prefix
        scripts = files("penstock.cache.store")
        prelude = scripts.joinpath("remove.lua").read_text(encoding="utf-8")
        self._put, self._note, self._drop = (
            self._redis.register_script(prelude + scripts.joinpath(f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("put", "note", "drop")
        )

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        now = self._clock()
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.get(self._name("e", key))
            pipe.lrange(self._name("o", key), 0, -1)
            pipe.zadd(self._name("u"), {key: now}, xx=True)
        answers = await self._asked(pipe.execute())
        found: dict[bytes, Entry] = {}
        for key, body, seen in zip(keys, answers[::3], answers[1::3], strict=True):
            entry = None if body is None else opened(body, key)
            if entry is not None and now < entry.until:
                found[key] = replace(entry, seen=tuple(_seen(seen)))
        return found

    async def put(self, entry: Entry) -> tuple[bytes, ...]:
        size, bounds = entry.size_bytes, self._bounds
        if size > bounds.max_bytes:
            return ()
        args: list[bytes | str | int] = [
            entry.key,
            sealed(entry),
            entry.vector,
            entry.scope.hex(),
            size,
            repr(self._clock()),
            repr(entry.until),
        ]
        gone = await self._asked(self._put(keys=[self._prefix], args=[*args, bounds.max_bytes, bounds.max_entries, MOST_GONE]))
        return tuple(gone)

    async def rows(self, scope: bytes, after: int) -> list[Row]:
        listed = await self._asked(self._redis.zrangebyscore(self._name("s", scope.hex().encode()), f"({after}", "+inf", withscores=True))
        rows: list[Row] = []
        for part in _parts(listed):
            vectors = await self._asked(self._redis.mget([self._name("v", key) for key, _ in part]))
            rows += [Row(int(number), key, vector) for (key, number), vector in zip(part, vectors, strict=True) if vector]
        return rows

    async def note(self, key: bytes, seen: Seen) -> None:
        written = msgspec.msgpack.encode((seen.similarity, seen.same))
        await self._asked(self._note(keys=[self._prefix], args=[key, written, MOST_SEEN]))

    async def drop(self, part: Part) -> int:
        count = 0
        async for keys in self._keys():
            if part != Part():
                bodies = await self._asked(self._redis.mget([self._name("e", key) for key in keys]))
                entries = [(key, opened(body, key) if body else None) for key, body in zip(keys, bodies, strict=True)]
                keys = [key for key, entry in entries if entry is None or part.holds(entry)]
            if keys:
                count += await self._asked(self._drop(keys=[self._prefix], args=keys))
        return count

    async def held(self) -> Held:
        size, by_meaning = await self._asked(self._redis.hmget(self._name("t"), ["bytes", "by_meaning"]))
        return Held(entries=await self._asked(self._redis.hlen(self._name("m"))), bytes=int(size or 0), by_meaning=int(by_meaning or 0))

    async def close(self) -> None:
        await self._redis.aclose()

    async def _keys(self) -> AsyncIterator[list[bytes]]:
        """All, some at a time."""
        cursor = 0
        while True:
            cursor, found = await self._asked(self._redis.hscan(self._name("m"), cursor, count=TOGETHER))
            if found:
                yield list(found)
            if cursor == 0:
                return

    def _name(self, kind: str, key: bytes | None = None) -> bytes:
        name = f"{self._prefix}:{kind}".encode()
        return name if key is None else name + b":" + key

    async def _asked(self, operation: Awaitable[T]) -> Any:
        """Its answer. Raises StoreDown."""
        try:
            return await operation
        except self._errors as error:
            await self._redis.connection_pool.disconnect(inuse_connections=False)  # after a restart none of them is any good
            raise StoreDown(f"Redis: {error}") from error


def _seen(written: Sequence[bytes]) -> Iterator[Seen]:
    for each in written:
        with contextlib.suppress(msgspec.DecodeError):  # another version of Penstock wrote it
            similarity, same = msgspec.msgpack.decode(each, type=tuple[float, bool])
            yield Seen(similarity, same)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), TOGETHER):
        yield items[start : start + TOGETHER]
