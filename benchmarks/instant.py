"""Both ends of a gateway benchmark, as light as asyncio allows: an upstream that answers at once, and clients that only count.

    python benchmarks/instant.py upstream PORT      serve OpenAI's chat completions, 100 tokens, whole or streamed

Written on bare protocols so that they cost little beside what is measured between them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import uvloop

TOKENS = 100
MODEL = "instant"
NUMBER = b"0123456789ab"  # in each request a number of its own: no cache has seen it before


def _whole() -> bytes:
    answer = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * TOKENS}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": TOKENS, "total_tokens": 20 + TOKENS},
    }  # fmt: skip
    return _response(b"application/json", json.dumps(answer).encode())


def _streamed() -> bytes:
    """Every chunk of a streamed answer, as one HTTP chunk each."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    deltas = [{"role": "assistant", "content": ""}, *({"content": "word "} for _ in range(TOKENS)), {}]
    chunks: list[dict[str, object]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]} for delta in deltas
    ]
    usage = {"prompt_tokens": 20, "completion_tokens": TOKENS, "total_tokens": 20 + TOKENS}
    chunks.append({**head, "choices": [], "usage": usage})
    events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]
    body = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + body


def _response(kind: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (kind, len(body), body)


WHOLE, STREAMED = _whole(), _streamed()
MODELS = _response(b"application/json", json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1}]}).encode())


class Upstream(asyncio.Protocol):
    """One connection: waits for a whole request, answers it at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            body, self._data = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            streams = b'"stream":true' in body or b'"stream": true' in body
            self._transport.write(MODELS if head.startswith(b"get") else STREAMED if streams else WHOLE)  # type: ignore[attr-defined]


@dataclass
class Load:
    """What some clients saw. Latencies are seconds, one for each request."""

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.elapsed_s

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Client(asyncio.Protocol):
    """One connection that asks the same thing again and again until none is left."""

    def __init__(
        self, request: bytes, numbers: Iterator[int], left: list[int], load: Load, done: asyncio.Future[None], *, streams: bool
    ) -> None:
        self._request, self._numbers, self._left, self._load, self._done, self._streams = request, numbers, left, load, done, streams

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        if self._left[0] <= 0:
            self._transport.close()
            if not self._done.done():
                self._done.set_result(None)
            return
        self._left[0] -= 1
        self._data = bytearray()
        self._started = time.perf_counter()
        self._transport.write(self._request.replace(NUMBER, b"%012d" % next(self._numbers)))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._complete():
            return
        self._load.latencies.append(time.perf_counter() - self._started)
        if not self._data.startswith(b"HTTP/1.1 200") or (self._streams and self._data.count(b"word") != TOKENS):
            self._load.failures.append(bytes(self._data[:300]).decode(errors="replace"))
        self._next()

    def _complete(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._data[:end]).lower()
        at = head.find(b"content-length:")
        if at >= 0:
            return len(self._data) >= end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        return self._data.endswith(b"0\r\n\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._load.failures.append(f"the connection was lost: {error}")
            self._done.set_result(None)


async def ask(port: int, *, clients: int, requests: int, stream: bool, key: str = "", model: str = MODEL) -> Load:
    """`requests` answers over `clients` connections, as fast as they come."""
    asked = {"model": model, "stream": stream, "temperature": 0, "max_tokens": TOKENS}
    body = json.dumps({**asked, "messages": [{"role": "user", "content": f"Say something about {NUMBER.decode()}."}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\n" + (f"authorization: Bearer {key}\r\n" if key else "") + "\r\n"
    loop, load, left, numbers = asyncio.get_running_loop(), Load(), [requests], itertools.count(time.time_ns() // 1000 % 10**11)
    ends = [loop.create_future() for _ in range(clients)]
    started = time.perf_counter()
    for end in ends:
        await loop.create_connection(
            lambda end=end: Client(head.encode() + body, numbers, left, load, end, streams=stream),
            "127.0.0.1",
            port,  # type: ignore[misc]
        )
    await asyncio.gather(*ends)
    load.elapsed_s = time.perf_counter() - started
    return load


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[2])))
