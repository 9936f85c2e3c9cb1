"""Two gateways on one Redis: a key's limits hold over both, exactly, and while Redis is away as the policy says."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from faults.metered_gateway import SECRET
from redis_server import RedisServer, redis_server

from penstock.core.types import Limits
from penstock.meter.attempts import spent
from penstock.meter.database import Database, open_database
from penstock.meter.keys import Keys, KeyScope

BODY = {"model": "fake", "prompt": "0123456789", "max_tokens": 20}  # 30 tokens of a millionth of a dollar each, exactly
COST = Decimal("0.00003")
CLIENTS = 32
HOLD_S = "60"


class Pair:
    """Two gateways with one database and one Redis."""

    def __init__(self, folder: Path, redis: RedisServer, when_down: str) -> None:
        self.redis = redis
        self.database = open_database("sqlite", folder)
        self.keys = Keys(self.database, SECRET)
        self.keys.create("first")  # without any the gateways were open to all until they notice one
        self._command = [
            sys.executable,
            str(Path(__file__).parent / "metered_gateway.py"),
            str(folder),
            redis.url,
            "sqlite",
            when_down,
            HOLD_S,
        ]
        self._log = folder / "log"
        self.urls: list[str] = []

    def start(self, stack: ExitStack) -> None:
        stack.callback(self.database.close)
        sink = stack.enter_context(self._log.open("a"))
        processes = [subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=sink, text=True) for _ in range(2)]
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        for process in processes:
            assert process.stdout is not None
            self.urls.append(process.stdout.readline().strip())
            assert self.urls[-1].startswith("http://"), self._log.read_text()[-2000:]

    def key(self, **limits: object) -> str:
        return self.keys.create("ana", KeyScope(limits=Limits(**limits)))[1]  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def load(self, token: str) -> AsyncIterator[Load]:
        limits = httpx.Limits(max_connections=2 * CLIENTS)
        async with httpx.AsyncClient(timeout=20, limits=limits, headers={"authorization": f"Bearer {token}"}) as client:
            while 401 in [(await client.get(f"{url}/v1/models")).status_code for url in self.urls]:
                await asyncio.sleep(0.05)  # a new key is known within refresh_s
            yield Load(client, self.urls)


class Load:
    """Clients that take turns with the gateways. `codes` counts the answers: "ok", or the error's code."""

    def __init__(self, client: httpx.AsyncClient, urls: list[str]) -> None:
        self._client = client
        self._urls = itertools.cycle(urls)
        self.codes: Counter[str] = Counter()

    async def ask(self) -> str:
        answer = await self._client.post(f"{next(self._urls)}/v1/completions", json=BODY)
        assert answer.status_code in (200, 429, 503), answer.text
        code = "ok" if answer.status_code == 200 else answer.json()["error"]["code"]
        self.codes[code] += 1
        return code

    async def at_once(self, count: int) -> Counter[str]:
        return Counter(await asyncio.gather(*(self.ask() for _ in range(count))))

    async def until(self, code: str, *, clients: int = 8, limit_s: float = 20) -> None:
        """Ask on and on, until an answer is `code`."""

        async def ask() -> None:
            while not done.is_set():
                if await self.ask() == code:
                    done.set()

        done = asyncio.Event()
        async with asyncio.timeout(limit_s):
            await asyncio.gather(*(ask() for _ in range(clients)))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pair(tmp_path: Path, redis: RedisServer, stack: ExitStack, when_down: str) -> Pair:
    made = Pair(tmp_path, redis, when_down)
    made.start(stack)
    return made


def total(database: Database) -> Decimal:
    return sum(spent(database, 0.0).values(), Decimal(0))


@pytest.mark.feature("keys", "rate limits", "budgets", "Redis")
async def test_limits_hold_over_both_and_through_a_restart_of_redis(tmp_path: Path, redis: RedisServer, stack: ExitStack) -> None:
    gateways = pair(tmp_path, redis, stack, "refuse")
    async with gateways.load(gateways.key(requests_per_minute=40)) as load:
        assert (await load.at_once(100))["ok"] == 40
    async with gateways.load(gateways.key(budget_day_usd=COST * 10)) as load:
        assert (await load.at_once(32))["ok"] + (await load.at_once(32))["ok"] == 10
    async with gateways.load(gateways.key(concurrent_requests=3)) as load:
        first = await load.at_once(32)
        assert first["ok"] >= 3
        assert first["ok"] + first["rate_limit_exceeded"] == 32
        assert (await load.at_once(3))["ok"] == 3  # every place is free again
    async with gateways.load(gateways.key(requests_per_minute=120, budget_day_usd=COST * 100)) as load:
        await load.at_once(30)
        redis.stop()
        await load.until("limits_unavailable")
        assert (await load.at_once(10))["limits_unavailable"] == 10
        redis.start()
        await load.until("ok")
        await load.until("insufficient_quota", clients=16)
        # A request whose answer from Redis was lost in the crash was counted and refused: no more than were under way.
        assert 100 - 2 * 8 <= load.codes["ok"] <= 100


async def test_each_gateway_counts_for_itself_while_redis_is_away(tmp_path: Path, redis: RedisServer, stack: ExitStack) -> None:
    gateways = pair(tmp_path, redis, stack, "local")
    budget = gateways.key(budget_day_usd=Decimal(1))
    async with gateways.load(gateways.key(requests_per_minute=50)) as load:
        assert (await load.at_once(20))["ok"] == 20
        redis.stop()
        await load.until("rate_limit_exceeded")
        await load.at_once(60)
        assert 50 < load.codes["ok"] <= 100  # each lets pass 50, those from before included
        assert load.codes["limits_unavailable"] == 0
    async with gateways.load(budget) as load:
        assert (await load.at_once(4))["limits_unavailable"] == 4  # money is refused


@pytest.mark.feature("keys", "budgets", "Redis", "ledger")
async def test_a_redis_that_comes_back_empty_is_told_what_was_spent(tmp_path: Path, stack: ExitStack) -> None:
    with redis_server(tmp_path, durable=False) as redis:
        gateways = pair(tmp_path, redis, stack, "local")
        async with gateways.load(gateways.key(budget_day_usd=COST * 40)) as load:
            assert (await load.at_once(20))["ok"] == 20
            while total(gateways.database) < COST * 20:
                await asyncio.sleep(0.05)
            redis.stop()
            await load.until("limits_unavailable")
            redis.start()
            await load.until("ok")
            await load.until("insufficient_quota", clients=16)
            assert load.codes["ok"] == 40
