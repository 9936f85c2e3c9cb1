"""From the settings to the store of counters."""

from __future__ import annotations

from pathlib import Path

from penstock.core.config import LimitSettings
from penstock.core.errors import ConfigError
from penstock.meter.counters.memory import MemoryCounters
from penstock.meter.counters.outage import PolicyCounters
from penstock.meter.counters.protocol import Counters

KNOWN = "memory, sqlite, or redis://HOST:PORT/NUMBER"


def make_counters(settings: LimitSettings, data_dir: Path, hold_s: float) -> Counters:
    """The counters that `limits.counters` names. Raises ConfigError, MissingExtra."""
    if settings.counters == "memory":
        return MemoryCounters(hold_s)
    return PolicyCounters(_store(settings, data_dir, hold_s), MemoryCounters(hold_s), settings)


def _store(settings: LimitSettings, data_dir: Path, hold_s: float) -> Counters:
    if settings.counters == "sqlite":
        from penstock.meter.counters.sqlite import SQLiteCounters
        from penstock.meter.database import open_database

        return SQLiteCounters(open_database(f"sqlite:///{data_dir.expanduser() / 'counters.db'}", data_dir), hold_s)
    if settings.counters.startswith(("redis://", "rediss://", "unix://")):
        from penstock.meter.counters.redis import RedisCounters

        return RedisCounters(settings.counters, hold_s, timeout_s=settings.timeout_s)
    given = settings.counters.rpartition("@")[2]  # an address may hold a password
    raise ConfigError(f"limits.counters is not known: {given[:80]!r}", hint=f"known: {KNOWN}")
