"""A lean load generator: closed-loop clients that stream completions over HTTP and note when each token came."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

READ_BYTES = 1 << 16


class Choice(msgspec.Struct):
    """What is looked at in one choice of a streamed chunk: it shares the machine's cores with the server, and must not take many."""

    token_ids: list[int] | None = None


class Chunk(msgspec.Struct):
    choices: list[Choice]


CHUNK = msgspec.json.Decoder(Chunk)


@dataclass(frozen=True)
class Answer:
    """One streamed answer. Times in seconds on one clock."""

    sent_s: float
    token_s: list[float]  # when each token arrived

    @property
    def ttft_s(self) -> float:
        return self.token_s[0] - self.sent_s

    @property
    def tpot_s(self) -> float:
        return (self.token_s[-1] - self.token_s[0]) / max(len(self.token_s) - 1, 1)


@dataclass(frozen=True)
class Load:
    """What a number of clients saw."""

    tokens_per_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float


async def complete(port: int, body: dict[str, object]) -> Answer:
    """One streamed `/v1/completions`; raises RuntimeError for anything but a complete answer."""
    payload = json.dumps(body | {"stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
    sent = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        writer.write((head + "Connection: close\r\n\r\n").encode() + payload)
        await writer.drain()
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError((status + await reader.read()).decode(errors="replace"))
        times: list[float] = []
        async for line in lines(reader):
            if line.startswith(b"data: [DONE]"):
                return Answer(sent, times)
            if line.startswith(b"data: "):
                times += [time.perf_counter()] * sum(len(choice.token_ids or ()) for choice in CHUNK.decode(line[6:]).choices)
        raise RuntimeError("the stream ended without [DONE]")
    finally:
        writer.close()


async def lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The lines of what comes, as many at a time as have come."""
    pending = b""
    while received := await reader.read(READ_BYTES):
        *whole, pending = (pending + received).split(b"\n")
        for line in whole:
            yield line


async def run(port: int, bodies: list[list[dict[str, object]]]) -> Load:
    """One client per list, each sending its bodies one after another; all clients start together."""

    async def client(queue: list[dict[str, object]]) -> list[Answer]:
        return [await complete(port, body) for body in queue]

    started = time.perf_counter()
    answers = [answer for group in await asyncio.gather(*map(client, bodies)) for answer in group]
    wall_s = time.perf_counter() - started
    ttft = sorted(answer.ttft_s for answer in answers)
    return Load(
        tokens_per_s=sum(len(answer.token_s) for answer in answers) / wall_s,
        ttft_p50_s=statistics.median(ttft),
        ttft_p99_s=ttft[min(int(len(ttft) * 0.99), len(ttft) - 1)],
        tpot_p50_s=statistics.median(answer.tpot_s for answer in answers),
    )
