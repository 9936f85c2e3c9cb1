"""Async parts used from plain code."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Iterator

import pytest

from penstock.app.loop import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


async def endless(closed: threading.Event) -> AsyncGenerator[int, None]:
    number = 0
    try:
        while True:
            yield number
            number += 1
            await asyncio.sleep(0)
    finally:
        closed.set()


async def failing() -> AsyncGenerator[int, None]:
    yield 1
    raise ValueError("broke")


def test_a_coroutine_is_run_and_its_exception_raised(loop: LoopThread) -> None:
    assert loop.run(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match="broke"):
        list(loop.iterate(failing()))


async def test_it_works_inside_a_running_loop(loop: LoopThread) -> None:
    assert loop.run(asyncio.sleep(0, 1)) == 1


def test_leaving_early_closes_the_generator(loop: LoopThread) -> None:
    closed = threading.Event()
    items = loop.iterate(endless(closed))
    assert [next(items), next(items)] == [0, 1]
    assert not closed.is_set()
    items.close()  # what leaving a `for` does
    assert closed.wait(5)


def test_ctrl_c_cancels_what_is_waited_for(loop: LoopThread) -> None:
    stopped = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    press = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    press.start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(wait())
    assert stopped.wait(5)


def test_closing_lets_what_runs_clean_up() -> None:
    closed = threading.Event()
    loop = LoopThread()
    items = loop.iterate(endless(closed))
    next(items)
    loop.close()
    assert closed.is_set()
