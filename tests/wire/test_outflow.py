"""How a stream is written: together what is ready together, at once what is ready, and never more than a client can take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Message

from penstock.gateway.connection import Reply
from penstock.gateway.outflow import MOST_WAITING, Outflow


class Client:
    """Takes what is sent as long as it is `reading`."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.ended = False
        self.reading = asyncio.Event()
        self.reading.set()

    async def send(self, message: Message) -> None:
        await self.reading.wait()
        self.taken.append(message["body"])
        self.ended = not message["more_body"]


@asynccontextmanager
async def flowing(client: Client) -> AsyncIterator[Outflow]:
    async with asyncio.timeout(5), Outflow(Reply(client.send)) as out:
        yield out


async def turns(count: int = 5) -> None:
    """Let others run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_ready_together_leaves_together_and_what_comes_alone_leaves_alone() -> None:
    client = Client()
    async with flowing(client) as out:
        for piece in (b"a", b"b", b"c"):
            out.put(piece)
        await turns()
        assert client.taken == [b"abc"]
        out.put(b"d")
        await turns()
        assert client.taken == [b"abc", b"d"]
        out.finish(b"e")
    assert (client.taken, client.ended) == ([b"abc", b"d", b"e"], True)


async def test_a_client_that_does_not_read_holds_back_who_writes() -> None:
    client = Client()
    client.reading.clear()
    made = 0
    async with flowing(client) as out:

        async def make() -> None:
            nonlocal made
            for _ in range(1000):
                out.put(b"x" * 1024)
                made += 1
                if out.full:
                    await out.room()

        making = asyncio.ensure_future(make())
        await turns(50)
        assert made * 1024 <= 2 * MOST_WAITING
        client.reading.set()
        await making
        out.finish(b"")
    assert sum(map(len, client.taken)) == 1000 * 1024


async def test_what_was_said_before_a_failure_is_written() -> None:
    client = Client()

    async def answer() -> None:
        async with flowing(client) as out:
            out.put(b"so far")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await answer()
    assert (client.taken, client.ended) == ([b"so far"], False)


async def test_nothing_more_is_written_for_a_client_that_left() -> None:
    client = Client()
    client.reading.clear()

    async def answer() -> None:
        async with flowing(client) as out:
            out.put(b"too late")
            await asyncio.Event().wait()

    task = asyncio.ensure_future(answer())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.taken == []


async def test_a_connection_that_breaks_is_no_reason_to_wait_for_ever() -> None:
    async def broken(message: Message) -> None:
        raise OSError("gone")

    async def answer() -> None:
        async with asyncio.timeout(5), Outflow(Reply(broken)) as out:
            out.put(b"x" * (MOST_WAITING + 1))
            await out.room()
            out.finish(b"")

    with pytest.raises(OSError, match="gone"):
        await answer()
