"""A race for the first token: "The Tail at Scale" (Dean and Barroso, 2013), hedged requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from penstock.core.errors import Bug
from penstock.upstream.call import Call

log = logging.getLogger(__name__)


async def race(first: Call, second: Callable[[], Call | None], *, after_s: float, limit_s: float | None) -> Call:
    """The call that answers first. When `first` has sent nothing `after_s` seconds on, `second()` is called, too.

    The loser is stopped at once, beside the answer, and has ended when the winner is closed. Raises the last failure when
    none answers; every call has ended then.
    """
    running = {asyncio.create_task(first.begin(limit_s)): first}
    try:
        done, _ = await asyncio.wait(running, timeout=after_s)
        if not done and (other := second()) is not None:
            running[asyncio.create_task(other.begin(limit_s))] = other
        winner = await _first(running)
    except BaseException:
        await asyncio.shield(_stop(running))
        raise
    if running:
        winner.rivals.append(asyncio.create_task(_stop(running)))
    return winner


async def _first(running: dict[asyncio.Task[None], Call]) -> Call:
    """The first call that has begun well; it and those that failed are taken out of `running`."""
    failure: BaseException = Bug("nobody ran in the race")
    while running:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=lambda task: running[task].tab.number):
            error = task.exception()
            if error is None:
                return running.pop(task)
            failure = error
            call = running.pop(task)
            if isinstance(error, Exception):
                call.fail(error)
            await call.close()
    raise failure


async def _stop(running: dict[asyncio.Task[None], Call]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for call in running.values():
        try:
            await call.close()
        except Exception:
            log.exception("the call of %r that lost a race did not end well", call.tab.route.upstream)
