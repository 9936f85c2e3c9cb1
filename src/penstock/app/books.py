"""What a server keeps of its requests: keys and their limits, prices, the ledger. All of it in one database."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from penstock.core.settings import Settings
from penstock.meter import Ledger, MemoryLedger, Pricing
from penstock.meter.bill import Runs
from penstock.meter.books import DatabaseLedger
from penstock.meter.database import open_database
from penstock.meter.keys import KeyRing, Keys, read_secret
from penstock.meter.limits import Limiter, make_limiter
from penstock.meter.prices import make_pricing

MARGIN_S = 60.0  # so long after its deadline a request is over for sure, and what it reserved is free


@dataclass(frozen=True, kw_only=True)
class Books:
    """Open books. `ring` finds keys, `limiter` holds them to their limits."""

    ring: KeyRing
    limiter: Limiter
    pricing: Pricing
    ledger: Ledger


async def open_books(settings: Settings, opened: AsyncExitStack) -> Books:
    """Open everything; `opened` closes it. Raises ConfigError, DatabaseDown.

    With `ledger.database = "memory"` nothing is written to disk, and there are no keys.
    """
    kept = settings.ledger.database != "memory"
    data_dir = data_folder(settings)
    database = open_database(settings.ledger.database, data_dir)
    opened.callback(database.close)
    secret = read_secret(settings.keys.secret, data_dir) if kept else secrets.token_bytes(32)
    ring = KeyRing(Keys(database, secret), settings.keys.refresh_s)
    await asyncio.to_thread(ring.start)
    opened.callback(ring.close)
    engines = [model.name for model in settings.models]
    deadline_s = settings.server.deadline_s
    hold_s = deadline_s + MARGIN_S
    pricing = make_pricing(settings.prices, engines, settings.upstreams, deadline_s=deadline_s)
    if not kept:
        limiter = make_limiter(settings.limits, data_dir, hold_s)
        opened.push_async_callback(limiter.close)
        return Books(ring=ring, limiter=limiter, pricing=pricing, ledger=MemoryLedger())
    runs = Runs(database, {name: machine.engine_usd_per_hour for name in engines if (machine := pricing.machine(name))})
    ledger = DatabaseLedger(database, data_dir / "spool", sync_s=settings.ledger.sync_s, runs=runs)
    opened.push_async_callback(ledger.close)
    limiter = make_limiter(settings.limits, data_dir, hold_s, ledger.spent)
    opened.push_async_callback(limiter.close)
    await ledger.start(limiter.settle_left)
    return Books(ring=ring, limiter=limiter, pricing=pricing, ledger=ledger)


def data_folder(settings: Settings) -> Path:
    """Where everything lies that outlives the process."""
    return Path(settings.server.data_dir).expanduser()
