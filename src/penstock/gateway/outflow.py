"""Bytes on their way to one client: what is ready at the same time leaves in one write, and nothing waits for more to come."""

from __future__ import annotations

import asyncio
from types import TracebackType

from penstock.gateway.connection import Reply

MOST_WAITING = 64 * 1024  # bytes; then whoever makes more of them waits for the client


class Outflow:
    """Writes a streamed body in a task of its own, so that making its pieces never waits for a write.

    Pieces put without an `await` between them leave together. Once the block has ended, or raised, everything has been
    written; when it is cancelled, nothing more is.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False  # no more pieces come
        self._complete = False  # the body ends with them
        self._more = asyncio.Event()
        self._room = asyncio.Event()

    async def __aenter__(self) -> Outflow:
        self._task = asyncio.ensure_future(self._pour())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended = True
        self._more.set()
        if kind is not None and not issubclass(kind, Exception):
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=kind is not None)

    def put(self, piece: bytes) -> None:
        """Have `piece` written as soon as may be."""
        self._pieces.append(piece)
        self._size += len(piece)
        self._more.set()

    def finish(self, piece: bytes) -> None:
        """`piece` is the last of the body."""
        self._complete = self._ended = True
        self.put(piece)

    @property
    def full(self) -> bool:
        """Whether so much waits to be written that no more should be made."""
        return self._size > MOST_WAITING

    async def room(self) -> None:
        """Wait until it is no longer full, or nothing can be written any more."""
        while self.full and not self._task.done():
            self._room.clear()
            await self._room.wait()

    async def _pour(self) -> None:
        try:
            while self._pieces or not self._ended:
                await self._more.wait()
                self._more.clear()
                if self._pieces:
                    body = b"".join(self._pieces)
                    self._pieces.clear()
                    await self._reply.write(body, last=self._complete)
                    self._size -= len(body)
                    self._room.set()
        except BaseException:
            self._size = 0
            self._room.set()
            raise
