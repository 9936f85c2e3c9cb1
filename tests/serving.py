"""A real `penstock serve` in its own process, as tests see it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from penstock.core.types import Route
from penstock.trace import Tab

READY_WITHIN_S = 60


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine(self) -> psutil.Process:
        """The engine's own process."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if "penstock.engine.worker" in " ".join(child.cmdline()))

    def process_memory(self) -> int:
        """Resident bytes of the server's own process."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def ready(self) -> tuple[int, str]:
        answer = httpx.get(f"{self.url}/ready", timeout=5)
        return answer.status_code, answer.text

    def kill(self) -> None:
        """The server and its engines, also suspended ones."""
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.send_signal(signal.SIGCONT)
                child.kill()
        self.process.kill()
        self.process.wait()

    def until(self, condition: Callable[[], bool], what: str, limit_s: float = READY_WITHIN_S) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.fail(f"the server ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        pytest.fail(f"not within {limit_s} s: {what}\n{self.log.read_text()[-2000:]}")

    def until_ready(self) -> None:
        self.until(lambda: self.ready()[0] == 200, "ready")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of a metric that carry these labels."""
        text = httpx.get(f"{self.url}/metrics").text
        found = re.findall(rf"^{re.escape(name)}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
        assert found, f"{name} is not in /metrics"
        return sum(float(value) for given, value in found if all(f'{k}="{v}"' in given for k, v in labels.items()))

    def until_idle(self) -> None:
        def idle() -> bool:
            names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
            return all(self.metric(name) == 0 for name in names) and self.finished() == self.accepted()

        self.until(idle, "idle: nothing runs, nothing waits, no KV block held, every accepted request finished")

    def accepted(self) -> float:
        return self.metric("penstock:requests_accepted_total")

    def finished(self) -> float:
        return self.metric("vllm:request_success_total")

    def body(self, **changes: object) -> dict[str, object]:
        return {"model": "penstock-mini", "prompt": "tell me a story", "max_tokens": 16, "stream": True, **changes}

    async def read(self, client: httpx.AsyncClient, body: dict[str, object], leave_after: int | None = None) -> list[str]:
        """The `data:` lines of a streamed completion, up to `leave_after` of them; then the client leaves."""
        lines: list[str] = []
        async with client.stream("POST", f"{self.url}/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                return [(await answer.aread()).decode()]
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    lines.append(line[6:])
                if leave_after is not None and len(lines) >= leave_after:
                    break
        return lines


def client(limit: int = 1000) -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=limit))


@contextmanager
def servers(folder: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts servers, whose files go to `folder`; they and their engines are killed at the end."""
    started: list[Server] = []

    def start(*flags: str, config: str = "") -> Server:
        path = folder / f"penstock-{len(started)}.toml"
        path.write_text(config)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = folder / f"server-{len(started)}.log"
        command = [sys.executable, "-m", "penstock", "serve", *flags, "--port", str(port), "--config", str(path)]
        with log.open("wb") as sink:
            environment = {**os.environ, "PENSTOCK_SERVER__DATA_DIR": str(folder / "data")}
            process = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True, env=environment)
        server = Server(process, port, log)
        started.append(server)
        server.until_ready()
        return server

    try:
        yield start
    finally:
        for server in started:
            server.kill()


def tab(route: Route = Route(upstream="here", model="mini")) -> Tab:  # noqa: B008
    """An attempt for an upstream that is called without a pipeline."""
    return Tab(route, "answer", 0, 0.0, 0.0)
