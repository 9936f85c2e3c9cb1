"""Attempts to write down, and databases to write them to."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from penstock.core.types import Attempt, Finish, Request, Route, Timings, Usage
from penstock.trace import Ended

DAY = 1_700_006_400.0  # 2023-11-15, midnight UTC


def attempt(number: int = 0, /, **changes: object) -> Attempt:
    fields: dict[str, object] = {
        "id": f"request-{number}#0",
        "request_id": f"request-{number}",
        "number": 0,
        "purpose": "answer",
        "key_id": "alice",
        "tenant": "alice",
        "model": "fast",
        "route": Route(upstream="openai", model="gpt-4o"),
        "started_at": DAY + number,
        "reason": "stop",
        "usage": Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=10, reasoning_tokens=5),
        "timings": Timings(queue_s=0.01, ttft_s=0.2, e2e_s=0.5),
        "cost_usd": Decimal("0.0000001"),
    }
    return Attempt(**(fields | changes))  # type: ignore[arg-type]


def ended(*attempts: Attempt) -> Ended:
    return Ended(request=Request(id=attempts[0].request_id, model="fast"), decision=None, finish=Finish(reason="stop"), attempts=attempts)


@dataclass
class Postgres:
    """A server of one's own, on a socket in `folder`."""

    folder: Path
    programs: Path

    @property
    def url(self) -> str:
        return f"postgresql:///postgres?host={self.folder}&user=postgres"

    def run(self, program: str, *arguments: str) -> None:
        """As the user postgres where this is root, for it refuses to run as root."""
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self.run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A running PostgreSQL; the test is skipped where there is none."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = Postgres(folder, installed[-1].parent)
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
        server.run("initdb", "-D", "data", "-U", "postgres", "--auth=trust", "--no-sync")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def until(condition: object, what: str, limit_s: float = 20.0) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            pytest.fail(f"not within {limit_s} s: {what}")
        time.sleep(0.02)
