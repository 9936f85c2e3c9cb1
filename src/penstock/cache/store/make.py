"""From the settings to the store of answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from penstock.cache.store.memory import MemoryStore
from penstock.cache.store.outage import ForgivingStore
from penstock.cache.store.protocol import Bounds, Store
from penstock.core.config import CacheSettings
from penstock.core.errors import ConfigError

KNOWN = "memory, sqlite, or redis://HOST:PORT/NUMBER"
FILE = "cache.db"
SQLITE_S, REDIS_S = 1.0, 0.25  # a store that takes longer is done without


def open_store(settings: CacheSettings, data_dir: Path, clock: Callable[[], float] = time.time) -> Store:
    """The store that `cache.store` names. Connects when first used. Raises ConfigError, MissingExtra."""
    bounds = Bounds(settings.max_bytes, settings.max_entries)
    if settings.store == "memory":
        return MemoryStore(bounds, clock)
    if settings.store == "sqlite":
        from penstock.cache.store.sqlite import SQLiteStore

        return ForgivingStore(SQLiteStore(data_dir.expanduser() / FILE, bounds, clock), SQLITE_S)
    if settings.store.startswith(("redis://", "rediss://", "unix://")):
        from penstock.cache.store.redis import RedisStore

        return ForgivingStore(RedisStore(settings.store, bounds, clock, timeout_s=REDIS_S), REDIS_S)
    given = settings.store.rpartition("@")[2]  # an address may hold a password
    raise ConfigError(f"cache.store is not known: {given[:80]!r}", hint=f"known: {KNOWN}")
