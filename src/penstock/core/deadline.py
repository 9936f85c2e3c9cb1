"""A deadline over many awaits, at the price of one timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import TypeVar

from penstock.core.errors import Bug, DeadlineExceeded

T = TypeVar("T")


class Deadline:
    """Interrupts what it waits for, and only that, once `limit_s` has passed by `elapsed_s`. `limit_s` None: never.

    Unlike `asyncio.timeout` it may be entered in a generator, by the task that goes on to run it: while the generator is
    suspended at a `yield` it touches nobody.
    """

    def __init__(self, elapsed_s: Callable[[], float], limit_s: float | None) -> None:
        self._elapsed_s = elapsed_s
        self._limit_s = limit_s
        self._task: asyncio.Task[object] | None = None
        self._is_waiting = False
        self._timer: asyncio.TimerHandle | None = None
        self._fired = False

    def __enter__(self) -> Deadline:
        if self._limit_s is not None:
            left_s = max(0.0, self._limit_s - self._elapsed_s())
            self._task = asyncio.current_task()
            self._timer = asyncio.get_running_loop().call_later(left_s, self._fire)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def next(self, events: AsyncGenerator[T, None]) -> T:
        """The next of `events`. Raises DeadlineExceeded; Bug where there is none."""
        if self._limit_s is not None and (self._fired or self._elapsed_s() >= self._limit_s):
            raise self._late()
        try:
            return await self.wait(anext(events))
        except StopAsyncIteration:
            raise Bug("the answer ended without a Finish") from None

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """The result of `awaitable`. Raises DeadlineExceeded."""
        self._is_waiting = True
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._fired and self._task is not None and self._task.uncancel() == 0:
                raise self._late() from None
            raise
        finally:
            self._is_waiting = False

    def _fire(self) -> None:
        self._fired = True
        if self._is_waiting and self._task is not None:
            self._task.cancel()

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"no complete answer within {self._limit_s} s", hint="ask for fewer tokens or allow more time")
