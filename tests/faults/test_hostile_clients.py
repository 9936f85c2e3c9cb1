"""Clients that take what they can get leave the others served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import httpx
import pytest
from serving import Server, client

IDLE = 2000
ASKED = {"model": "penstock-mini", "messages": [{"role": "user", "content": "What is 17 + 25?"}], "max_tokens": 16}


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server]) -> Server:
    return serve_module(config="[server]\nmax_connections = 2100\n")


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


@pytest.fixture
def crowd(server: Server) -> Iterator[list[socket.socket]]:
    """Connections that say nothing."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(connect(server))) for _ in range(IDLE)]


async def answer(server: Server) -> str:
    async with client() as http:
        given = await http.post(f"{server.url}/v1/chat/completions", json=ASKED, timeout=20)
    assert given.status_code == 200, given.text
    return str(given.json()["choices"][0]["message"]["content"])


async def test_two_thousand_idle_connections(server: Server, crowd: list[socket.socket]) -> None:
    assert "42" in await answer(server)


async def test_one_connection_too_many_is_told_so(server: Server, crowd: list[socket.socket]) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            last = stack.enter_context(closing(connect(server)))
        told = await asyncio.to_thread(last.recv, 65536)
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b"2100 connections" in told


async def test_heads_that_come_byte_by_byte(server: Server) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connect(server))) for _ in range(200)]
        for connection in slow:
            connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-")
        assert "42" in await answer(server)
        for connection in slow:
            connection.send(b"a")
        assert "42" in await answer(server)


async def test_a_body_of_100_mb(server: Server) -> None:
    async def pieces() -> object:
        for _ in range(100):
            yield b"x" * 2**20

    before = server.process_memory()
    async with client() as http:
        announced = {"content-type": "application/json", "content-length": str(100 * 2**20)}
        chunked = {"content-type": "application/json"}
        refused = await asyncio.gather(
            *(http.post(f"{server.url}/v1/chat/completions", content=pieces(), headers=headers) for headers in (announced, chunked)),
            return_exceptions=True,
        )
    for given in refused:  # a server that closes while it is still being sent to may be seen as a broken connection
        assert isinstance(given, httpx.TransportError) or given.status_code == 413
    assert "42" in await answer(server)
    assert server.process_memory() - before < 64 * 2**20
