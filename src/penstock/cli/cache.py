"""`penstock cache stats|clear`: the answer cache of a server, in its file or its Redis."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from penstock.cache.store import Part, Store, open_store
from penstock.cli.settings import read
from penstock.core.errors import UserError
from penstock.core.settings import Settings


def run(arguments: argparse.Namespace) -> int:
    settings = read(arguments, [])
    if settings.cache.store == "memory":
        hint = 'ask it: POST /admin/cache/clear; or set cache.store to "sqlite" or to a redis:// address'
        raise UserError("cache.store is memory: only the running server has it", hint=hint)
    print(asyncio.run(_run(settings, arguments)))
    return 0


async def _run(settings: Settings, arguments: argparse.Namespace) -> str:
    store = open_store(settings.cache, Path(settings.server.data_dir))
    try:
        if arguments.action == "stats":
            return await _stats(store)
        count = await store.drop(Part(tenant=arguments.tenant, model=arguments.model))
        return f"{count:,} answer{'' if count == 1 else 's'} forgotten"
    finally:
        await store.close()


async def _stats(store: Store) -> str:
    held = await store.held()
    return f"answers  {held.entries:,}, of them {held.by_meaning:,} found by meaning, too\nsize     {held.bytes / 2**20:,.1f} MiB"
