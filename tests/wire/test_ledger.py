"""What the ledger says is what the upstream counted: streamed or whole, however usage is told, wherever the answer is cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from fakes.anthropic import MODEL as CLAUDE
from fakes.anthropic import anthropic_fake
from fakes.openai import MODEL as GPT
from fakes.openai import openai_fake
from fakes.server import USAGE_SHAPES, Answer, Fake
from prometheus_client import CollectorRegistry

from penstock.core.config import PriceSettings, ServerSettings, UpstreamSettings
from penstock.gateway.app import build
from penstock.gateway.server import bind, serve
from penstock.meter.attempts import COLUMNS
from penstock.meter.books import DatabaseLedger
from penstock.meter.database import Database, open_database
from penstock.meter.prices import make_pricing
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.trace.metrics import Metrics
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.make import make_upstream

PRICES = 'prices = [{ models = ["*"], prompt = 1, cached = 0.1, completion = 10, reasoning = 100 }]'
COUNTED = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "estimated", "cost_usd")
THOUGHTFUL = {"thoughts": ("Let", " me", " see"), "cached": 2}

Row = dict[str, object]


@dataclass
class Metered:
    """A gateway over one fake upstream, and its ledger."""

    http: httpx.AsyncClient
    database: Database
    ledger: DatabaseLedger
    model: str

    def body(self, *, stream: bool) -> Row:
        return {"model": self.model, "messages": [{"role": "user", "content": "three words here"}], "stream": stream}

    async def ask(self, *, stream: bool) -> Row:
        """Ask once and return what was written down of it."""
        answer = await self.http.post("/v1/chat/completions", json=self.body(stream=stream))
        assert answer.status_code == 200, answer.text
        [row] = await self.rows()
        return row

    async def leave_after(self, text: str) -> None:
        """Ask for a stream and hang up once so much of the answer has come."""
        async with self.http.stream("POST", "/v1/chat/completions", json=self.body(stream=True)) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    text = text.removeprefix(delta.get("content") or "")
                if not text:
                    return

    async def rows(self) -> list[Row]:
        """The rows since the last call; waits for one."""
        async with asyncio.timeout(10):
            while not (found := await asyncio.to_thread(self._take)):
                await asyncio.sleep(0.01)
        return found

    def _take(self) -> list[Row]:
        self.ledger.spent(0)
        found = [dict(zip(COLUMNS, row, strict=True)) for row in self.database.query(f"SELECT {', '.join(COLUMNS)} FROM attempts")]
        self.database.execute("DELETE FROM attempts")
        return found


@asynccontextmanager
async def metered(fake: Fake, kind: str, folder: Path) -> AsyncIterator[Metered]:
    (folder / "prices.toml").write_text(PRICES)
    async with AsyncExitStack() as opened:
        database = open_database("sqlite", folder)
        opened.callback(database.close)
        ledger = DatabaseLedger(database, folder / "spool", sync_s=3600)
        await ledger.start()
        upstreams = {"there": await make_upstream(UpstreamSettings(name="there", kind=kind, url=fake.url))}  # type: ignore[arg-type]
        pipeline = Pipeline(
            dispatch=Dispatch(upstreams),
            router=FixedRouter(routes_by_model(upstreams)),
            ledger=ledger,
            pricing=make_pricing(PriceSettings(file=str(folder / "prices.toml")), []),
        )
        opened.push_async_callback(pipeline.close)
        settings = ServerSettings(port=0, drain_s=0)
        bound, ready = bind(settings), asyncio.Event()
        serving = asyncio.create_task(
            serve(build(pipeline, settings, Metrics(CollectorRegistry(), [])), settings, bound=bound, on_ready=lambda _: ready.set())
        )
        opened.push_async_callback(asyncio.wait, [serving])
        opened.callback(serving.cancel)
        await ready.wait()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        http = await opened.enter_async_context(httpx.AsyncClient(base_url=url, timeout=10))
        yield Metered(http, database, ledger, CLAUDE if kind == "anthropic" else GPT)


def counted(row: Row) -> Row:
    return {name: row[name] for name in COUNTED}


@pytest.mark.parametrize("shape", [shape for shape in USAGE_SHAPES if shape != "none"])
@pytest.mark.feature("ledger", "streaming")
async def test_streamed_and_whole_answers_are_written_down_as_the_upstream_counted_them(shape: str, tmp_path: Path) -> None:
    """3 tokens in, 2 of them cached; 3 thoughts and 4 words out: 1 + 0.2 + 40 + 300 millionths of a dollar."""
    async with openai_fake(Answer(usage=shape, **THOUGHTFUL)) as fake, metered(fake, "openai", tmp_path) as gateway:  # type: ignore[arg-type]
        whole = await gateway.ask(stream=False)
        streamed = await gateway.ask(stream=True)
    assert counted(whole) == counted(streamed)
    assert [streamed[name] for name in COUNTED[:-1]] == [3, fake.generated, 2, 0, 3, 0]
    assert Decimal(str(streamed["cost_usd"])) == Decimal("0.0003412")
    assert (streamed["reason"], streamed["purpose"], streamed["upstream"]) == ("stop", "answer", "there")


async def test_anthropics_answers_are_written_down_as_it_counted_them(tmp_path: Path) -> None:
    answer = Answer(finish="end_turn", **THOUGHTFUL)  # type: ignore[arg-type]
    async with anthropic_fake(answer) as fake, metered(fake, "anthropic", tmp_path) as gateway:
        whole = await gateway.ask(stream=False)
        streamed = await gateway.ask(stream=True)
    assert counted(whole) == counted(streamed)
    assert [streamed[name] for name in COUNTED[1:-1]] == [fake.generated, 2, 0, 3, 0]


async def test_what_nobody_counted_is_counted_from_what_came_and_marked(tmp_path: Path) -> None:
    async with openai_fake(Answer(usage="none")) as fake, metered(fake, "openai", tmp_path) as gateway:
        streamed = await gateway.ask(stream=True)
        whole = await gateway.ask(stream=False)
    assert streamed["completion_tokens"] == fake.generated == 4
    assert streamed["estimated"] == whole["estimated"] == 1
    assert streamed["prompt_tokens"] == whole["prompt_tokens"] > 0  # type: ignore[operator]
    assert streamed["cost_usd"] is not None


@pytest.mark.parametrize("shape", ["alone", "each"])
async def test_an_answer_cut_by_the_upstream_is_paid_as_far_as_it_came(shape: str, tmp_path: Path) -> None:
    async with openai_fake(Answer(usage=shape, cut_after=2)) as fake, metered(fake, "openai", tmp_path) as gateway:  # type: ignore[arg-type]
        row = await gateway.ask(stream=True)
    assert (row["reason"], row["failure"], row["completion_tokens"]) == ("error", "upstream_error", 2)
    assert row["estimated"] == (shape == "alone")
    assert Decimal(str(row["cost_usd"])) == (row["prompt_tokens"] + 20) * Decimal("0.000001")  # type: ignore[operator]


@pytest.mark.parametrize("shape", ["alone", "each"])
@pytest.mark.feature("ledger", "streaming", "disconnect")
async def test_an_answer_that_the_client_left_is_paid_as_far_as_it_came(shape: str, tmp_path: Path) -> None:
    async with openai_fake(Answer(usage=shape, hang_after=2)) as fake, metered(fake, "openai", tmp_path) as gateway:  # type: ignore[arg-type]
        await gateway.leave_after("Hello,")
        [row] = await gateway.rows()
    assert (row["reason"], row["completion_tokens"], row["estimated"]) == ("abort", 2, shape == "alone")
    assert row["cost_usd"] is not None


@pytest.mark.feature("ledger", "retries")
async def test_each_try_has_a_row_of_its_own(tmp_path: Path) -> None:
    broken = Answer(status=503, body={"error": {"message": "not now"}})
    async with openai_fake(broken, Answer()) as fake, metered(fake, "openai", tmp_path) as gateway:
        answer = await gateway.http.post("/v1/chat/completions", json=gateway.body(stream=False))
        assert answer.status_code == 200
        rows = sorted(await gateway.rows(), key=lambda row: int(str(row["number"])))
    assert [(row["number"], row["purpose"], row["reason"]) for row in rows] == [(0, "answer", "error"), (1, "retry", "stop")]
    assert len({row["request_id"] for row in rows}) == 1
    assert len({row["id"] for row in rows}) == 2
    assert len(fake.asked) == 2
