"""The answer cache by HTTP: what is told of a hit, what an admin may see and clear, what outlives the server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Server, servers

CONFIG = """
[cache]
exact = "on"
store = "sqlite"
"""
ASK: dict[str, Any] = {
    "model": "penstock-mini",
    "messages": [{"role": "user", "content": "What is 17 + 25?"}],
    "temperature": 0,
    "max_tokens": 8,
    "penstock": {"explain": True},
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    with servers(tmp_path) as start:
        yield start


def post(server: Server, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def penstock(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PENSTOCK_SERVER__DATA_DIR": str(folder / "data")}
    command = [sys.executable, "-m", "penstock", *arguments, "--config", str(folder / "penstock-0.toml")]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.feature("exact cache", "explain")
def test_a_hit_says_so_is_counted_cleared_and_outlives_a_kill(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(config=CONFIG)
    first, again = post(server, **ASK), post(server, **ASK)
    assert [answer.headers["x-penstock-cache"] for answer in (first, again)] == ["miss", "hit"]
    assert again.json()["choices"] == first.json()["choices"]
    (judged,) = again.json()["penstock"]["judgements"]
    assert (judged["room"], judged["rule"], judged["action"]) == ("cache", "exact", "hit")
    assert "answered" in judged["why"]
    assert post(server, **ASK, stream=True).headers["x-penstock-cache"] == "hit"
    assert post(server, **(ASK | {"penstock": {"cache": "off"}})).headers["x-penstock-cache"] == "bypass"

    shown = httpx.get(f"{server.url}/admin/cache").json()
    assert shown["held"]["entries"] == 1
    assert shown["decided"] == {"exact miss": 1, "exact hit": 2, "exact bypass": 1}
    assert post(server, "/admin/cache/clear", tenant="nobody").json() == {"cleared": 0}
    assert post(server, "/admin/cache/clear", tenants="nobody").status_code == 400

    server.kill()
    assert "answers  1," in penstock(tmp_path, "cache", "stats")
    server = start(config=CONFIG)
    assert post(server, **ASK).headers["x-penstock-cache"] == "hit"
    assert penstock(tmp_path, "cache", "clear", "--model", "penstock-mini") == "1 answer forgotten\n"
    assert post(server, **ASK).headers["x-penstock-cache"] == "miss"
    assert post(server, "/admin/cache/clear").json() == {"cleared": 1}
    assert post(server, **ASK).headers["x-penstock-cache"] == "miss"
