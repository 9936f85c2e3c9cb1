"""The server's beginning and its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from penstock.core.config import ServerSettings
from penstock.core.errors import UserError
from penstock.gateway.server import bind, serve, url

ASK = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
PIECES = 20


@contextmanager
def server(drain_s: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, str(Path(__file__).with_name("server_process.py")), str(drain_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()  # type: ignore[union-attr]
        finally:
            process.kill()


def stream_until(base: str, process: subprocess.Popen[str], signals: int) -> list[str]:
    """The events of one stream; after the first, so many SIGTERMs are sent."""
    with httpx.stream("POST", f"{base}/v1/chat/completions", json=ASK, timeout=10) as answer:
        events = []
        for line in filter(None, answer.iter_lines()):
            if not events:
                for _ in range(signals):
                    process.send_signal(signal.SIGTERM)
                    time.sleep(0.3)
            events.append(line.removeprefix("data: "))
    return events


def test_sigterm_lets_a_stream_finish_and_takes_no_new_one() -> None:
    with server(drain_s=20) as (process, base):
        events = stream_until(base, process, signals=1)
        assert events[-1] == "[DONE]"
        assert sum("Hello" in event for event in events) == PIECES
        assert process.wait(5) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{base}/health")
        assert process.stdout is not None
        assert process.stdout.read() == "closed\n"


def test_the_drain_is_bounded_and_says_so_to_those_it_cuts_off() -> None:
    with server(drain_s=1) as (process, base):
        started = time.monotonic()
        events = stream_until(base, process, signals=1)
        assert time.monotonic() - started < 1.9
        assert json.loads(events[-1])["error"]["code"] == "not_ready"
        assert process.wait(5) == 0


def test_a_second_signal_stops_at_once() -> None:
    with server(drain_s=20) as (process, base):
        started = time.monotonic()
        events = stream_until(base, process, signals=2)
        assert json.loads(events[-1])["error"]["code"] == "not_ready"
        assert process.wait(5) == 0
        assert time.monotonic() - started < 1.9


def test_a_port_in_use_is_a_users_mistake() -> None:
    with bind(ServerSettings(port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use .*--port"):
            bind(ServerSettings(port=port))


async def test_of_two_that_start_at_once_on_a_port_one_is_told_so() -> None:
    with bind(ServerSettings(port=0)) as first:
        settings = ServerSettings(port=first.getsockname()[1])
        second = bind(settings)
        first.listen()
        with pytest.raises(UserError, match="is in use"):
            await serve(Starlette(), settings, bound=second)


def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(UserError, match="192.0.2.1"):
        bind(ServerSettings(host="192.0.2.1", port=0))
    with pytest.raises(UserError, match="not an address"):
        bind(ServerSettings(host="no such host", port=0))


def test_loopback_unless_told_otherwise() -> None:
    with bind(ServerSettings(port=0)) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"
        assert url(bound) == f"http://127.0.0.1:{bound.getsockname()[1]}"
