"""Several answers as one stream of events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from penstock.core.errors import Bug
from penstock.core.types import Event, Finish

log = logging.getLogger(__name__)

Placed = tuple[int, Event]


async def merged(runs: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[Placed, None]:
    """Events as they come, each with the place of its run. Each run ends in one `Finish`; closing this closes them all.

    A run is never more than one event ahead of whoever reads.
    """
    if len(runs) == 1:
        async with aclosing(runs[0]) as events:
            async for event in events:
                yield 0, event
        return
    queue: asyncio.Queue[Placed] = asyncio.Queue(maxsize=1)
    tasks = [asyncio.ensure_future(_pump(place, run, queue)) for place, run in enumerate(runs)]
    try:
        left = len(runs)
        while left:
            place, event = await queue.get()
            left -= isinstance(event, Finish)
            yield place, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(place: int, run: AsyncGenerator[Event, None], queue: asyncio.Queue[Placed]) -> None:
    """Move a run's events into the queue: all in this one task, which a generator with a timeout inside needs."""
    try:
        async with aclosing(run) as events:
            async for event in events:
                await queue.put((place, event))
    except Exception:
        log.exception("a pipeline run raised, which it never should")
        await queue.put((place, Finish(reason="error", failure=Bug("internal error").failure())))
