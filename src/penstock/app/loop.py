"""An event loop in a thread of its own, so that plain code can use async parts, also inside a notebook's running loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

from penstock.core.errors import UserError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads. A caller that is interrupted cancels what it waits for."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="penstock-loop", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._loop.is_closed()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, or its exception. Raises UserError once this is closed."""
        if self.closed:
            coroutine.close()
            raise _closed()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # of no effect unless the wait was interrupted

    def iterate(self, events: AsyncGenerator[T, None]) -> Iterator[T]:
        """The generator's items as they come, or its exception. Leaving early closes it."""
        if self.closed:
            raise _closed()
        items: queue.SimpleQueue[T | None] = queue.SimpleQueue()  # None: no more
        future = asyncio.run_coroutine_threadsafe(_pump(events, items), self._loop)
        future.add_done_callback(lambda _: items.put(None))
        try:
            while (item := items.get()) is not None:
                yield item
            future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Cancel what still runs, let it clean up, stop the loop and its thread."""
        self.run(_settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _closed() -> UserError:
    return UserError("the engine is closed", hint="make a new one")


async def _pump(events: AsyncGenerator[T, None], items: queue.SimpleQueue[T | None]) -> None:
    async with aclosing(events):
        async for event in events:
            items.put(event)


async def _settle() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
