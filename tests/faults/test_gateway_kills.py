"""A gateway that is killed under load, again and again: every finished request is in the ledger once, and no budget is overdrawn.

PENSTOCK_KILLS sets how often it is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from books import postgres_server
from faults.metered_gateway import SECRET

from penstock.core.types import Limits
from penstock.meter.database import Database, open_database
from penstock.meter.keys import Keys, KeyScope

KILLS = int(os.environ.get("PENSTOCK_KILLS", "2"))
CLIENTS = 12
BODY = {"model": "fake", "prompt": "0123456789", "max_tokens": 20}  # 10 tokens in, 20 out: 30 millionths of a dollar, exactly
COST = Decimal("0.00003")
ROUND = 120  # requests that a budget allows for each kill


@dataclass
class Setup:
    """What the gateways of one test have in common."""

    folder: Path
    counters: str
    address: str
    database: Database  # at that address

    @property
    def log(self) -> Path:
        return self.folder / "log"


@pytest.fixture(params=[("memory", "sqlite"), ("sqlite", "postgres")], ids=["one process", "shared"])
def setup(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setup]:
    counters, kind = request.param
    with postgres_server() if kind == "postgres" else nullcontext() as server:
        address = server.url if server else kind
        database = open_database(address, tmp_path)
        yield Setup(tmp_path, counters, address, database)
        database.close()


@contextmanager
def gateway(setup: Setup) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running one and its URL; killed at the end if it still runs."""
    script = Path(__file__).parent / "metered_gateway.py"
    command = [sys.executable, str(script), str(setup.folder), setup.counters, setup.address]
    with setup.log.open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), setup.log.read_text()[-2000:]
        yield process, url
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


class Load:
    """Clients that ask one request after the other, every second one streamed, until their server is gone or their budget is."""

    def __init__(self, url: str, token: str, number: int) -> None:
        self._url = f"{url}/v1/completions"
        self._headers = {"authorization": f"Bearer {token}"}
        self._number = number
        self.finished: list[str] = []  # ids of requests whose answer came to its end
        self.refused = 0
        self.enough = asyncio.Event()

    async def run(self, enough: int) -> None:
        """Until the server is gone; sets `enough` when so many requests were answered."""
        async with httpx.AsyncClient(timeout=10, headers=self._headers) as client, asyncio.TaskGroup() as clients:
            for name in range(CLIENTS):
                clients.create_task(self._ask(client, name, enough))

    async def _ask(self, client: httpx.AsyncClient, name: int, enough: int) -> None:
        for count in range(10_000):
            id = f"{self._number}-{name}-{count}"
            try:
                answer = await client.post(self._url, json={**BODY, "stream": count % 2 == 1}, headers={"x-request-id": id})
            except httpx.TransportError:
                return
            if answer.status_code == 429:
                assert answer.json()["error"]["code"] == "insufficient_quota"
                self.refused += 1
                self.enough.set()
                return
            assert answer.status_code == 200, answer.text
            if count % 2 == 0 or answer.text.rstrip().endswith("data: [DONE]"):
                self.finished.append(id)
            if len(self.finished) >= enough:
                self.enough.set()


async def until_killed(setup: Setup, token: str, number: int, seed: random.Random) -> list[str]:
    """Ids of what was answered by a gateway that is killed in the midst of it."""
    with gateway(setup) as (process, url):
        load = Load(url, token, number)
        running = asyncio.create_task(load.run(seed.randrange(20, ROUND // 2)))
        await asyncio.wait_for(load.enough.wait(), 30)
        await asyncio.sleep(seed.random() * 0.02)
        process.kill()
        await running
    return load.finished


async def until_spent(setup: Setup, token: str, expected: int) -> list[str]:
    """Ids of what was answered by a gateway until nothing was left of the budget, not even what killed ones had reserved."""
    finished: list[str] = []
    with gateway(setup) as (process, url):
        for number in itertools.count(KILLS):
            left = expected - sum(rows_of(setup.database).values())
            load = Load(url, token, number)
            await load.run(10_000)
            finished += load.finished
            if left <= 0:
                break
            await asyncio.sleep(0.2)
        process.terminate()
        await asyncio.to_thread(process.wait, 20)
    return finished


def rows_of(database: Database) -> Counter[str]:
    """By the ids that the clients gave: cmpl-ID-UNIQUE-PLACE."""
    return Counter(id.removeprefix("cmpl-").rsplit("-", 2)[0] for (id,) in database.query("SELECT request_id FROM attempts"))


@pytest.mark.timeout(60 + 10 * KILLS)
@pytest.mark.feature("keys", "budgets", "ledger", "streaming")
async def test_every_finished_request_is_recorded_once_and_the_budget_is_spent_exactly(setup: Setup) -> None:
    allowed = ROUND * KILLS
    limits = Limits(budget_day_usd=COST * allowed, requests_per_minute=10**6)
    key, token = Keys(setup.database, SECRET).create("load", KeyScope(limits=limits))
    seed = random.Random(KILLS)
    finished: list[str] = []
    for number in range(KILLS):
        finished += await until_killed(setup, token, number, seed)
    assert len(finished) >= KILLS * 20
    finished += await until_spent(setup, token, allowed)
    recorded = rows_of(setup.database)
    assert {id: recorded[id] for id in finished if recorded[id] != 1} == {}
    assert len(finished) == len(set(finished)) <= allowed
    [(count, total)] = setup.database.query("SELECT count(*), money_sum(cost_usd) FROM attempts WHERE key_id = ?", (key.id,))
    assert (count, Decimal(str(total))) == (allowed, COST * allowed)
    assert "Traceback" not in setup.log.read_text(), setup.log.read_text()[-3000:]
    sys.stdout.write(f"{KILLS} kills: {len(finished)} requests finished, {count} recorded\n")
