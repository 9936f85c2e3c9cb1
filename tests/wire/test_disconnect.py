"""A client that leaves, and a client that does not read."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import Message

from penstock.core.types import Delta, Event, Finish, Request, Route
from penstock.gateway.connection import Reply, while_connected
from penstock.trace import Tab
from penstock.upstream.fake import FakeUpstream, Script

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
HANGS = Script(hang_after=1)


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def post(url: str, path: str, body: dict[str, Any]) -> socket.socket:
    """Send a request and leave the answer unread."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, port))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    client.sendall(head.encode() + data)
    return client


@pytest.mark.parametrize("chars", [5, 300_000])
@pytest.mark.parametrize("stream", [False, True])
def test_leaving_ends_the_request_at_once(make_server: Callable[..., Any], stream: bool, chars: int) -> None:
    server = make_server(HANGS)
    client = post(server.url, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * chars}], "stream": stream})
    assert wait_until(lambda: server.upstream.open == 1)
    if stream:
        assert client.recv(64).startswith(b"HTTP/1.1 200")
    client.close()
    assert wait_until(lambda: server.upstream.open == 0)
    assert wait_until(lambda: server.ledger.finished == {"abort": 1})
    assert httpx.get(f"{server.url}/health").status_code == 200


async def test_whoever_has_everything_may_leave() -> None:
    written = asyncio.Event()

    async def send(message: Message) -> None:
        """Takes everything."""

    reply = Reply(send)

    async def receive() -> dict[str, str]:
        await written.wait()
        return {"type": "http.disconnect"}

    async def work() -> None:
        await reply.write(b"all", last=True)
        written.set()
        for _ in range(5):  # cleaning up takes a little longer than leaving
            await asyncio.sleep(0)

    await while_connected({"state": {}}, receive, reply, work(), patience_s=5)


def test_leaving_ends_every_prompt_of_a_batch(make_server: Callable[..., Any]) -> None:
    server = make_server(HANGS)
    client = post(server.url, "/v1/completions", {"prompt": ["a", "b", "c"]})
    assert wait_until(lambda: server.upstream.open == 3)
    client.close()
    assert wait_until(lambda: server.upstream.open == 0)
    assert wait_until(lambda: server.ledger.finished == {"abort": 3})


def test_one_failure_in_a_batch_ends_the_others(make_server: Callable[..., Any]) -> None:
    server = make_server(HANGS, Script(error=RuntimeError("broken")))
    answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": ["a", "b"]})
    assert answer.status_code == 500
    assert wait_until(lambda: server.upstream.open == 0)


class Endless(FakeUpstream):
    """Answers for as long as someone reads, and counts."""

    sent = 0

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        while self.sent < 20_000:
            self.sent += 1
            yield Delta(text="x" * 4096, token_ids=(1,))
        yield Finish(reason="stop")


def test_a_client_that_does_not_read_holds_the_answer_back(make_server: Callable[..., Any]) -> None:
    upstream = Endless()
    server = make_server(upstream=upstream)
    client = post(server.url, "/v1/chat/completions", ASK | {"stream": True})
    assert wait_until(lambda: upstream.sent > 0)
    counts = [0, upstream.sent]
    while counts[-1] != counts[-2]:  # the sockets between the two fill up, and then it stands still
        time.sleep(0.2)
        counts.append(upstream.sent)
    assert 0 < upstream.sent < 10_000
    client.close()


def test_a_client_that_reads_nothing_is_given_up(make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.gateway.generate.WRITE_TIMEOUT_S", 0.2)
    server = make_server(upstream=Endless())
    with post(server.url, "/v1/chat/completions", ASK | {"stream": True}):
        assert wait_until(lambda: server.ledger.finished == {"abort": 1})


def test_a_slow_answer_is_not_given_up(make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.gateway.generate.WRITE_TIMEOUT_S", 0.05)
    server = make_server(Script(pieces=("a", "b"), delay_s=0.3))
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=ASK | {"stream": True})
    assert answer.text.endswith("data: [DONE]\n\n")


def test_a_body_that_does_not_arrive(make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.gateway.generate.BODY_TIMEOUT_S", 0.1)
    url = urlsplit(make_server().url)
    with socket.create_connection((url.hostname, url.port), timeout=5) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{")
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"did not arrive within 0.1 s" in answer


def test_an_endless_head(make_server: Callable[..., Any]) -> None:
    url = urlsplit(make_server().url)
    with socket.create_connection((url.hostname, url.port), timeout=5) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ")
        client.sendall(b"x" * 70_000)
        assert client.recv(4096).startswith(b"HTTP/1.1 400")


def test_a_client_that_does_not_wait_its_turn_is_noticed_when_it_leaves(make_server: Callable[..., Any]) -> None:
    server = make_server(HANGS)
    client = post(server.url, "/v1/chat/completions", ASK)
    assert wait_until(lambda: server.upstream.open == 1)
    client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    client.close()
    assert wait_until(lambda: server.upstream.open == 0)


def test_of_two_requests_at_once_the_first_is_answered_and_the_connection_closes(make_server: Callable[..., Any]) -> None:
    server = make_server()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        answer = b""
        while received := client.recv(65536):
            answer += received
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in answer


@pytest.mark.parametrize("begun", [b"", b"POST /v1/completions HTTP/1.1\r\nHost:"])
def test_a_head_that_does_not_come_ends_the_connection(
    make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("penstock.gateway.protocol.HEAD_TIMEOUT_S", 0.2)
    server = make_server()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(begun)
        assert client.recv(65536) == b""
