"""A cascade and a vote by HTTP: what clients get, what the answer explains, what the ledger keeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fakes.openai import openai_fake
from fakes.server import Answer, Fake

from penstock.app.stack import build
from penstock.core.config import EmbeddingSettings, PageSettings, PriceSettings, RouterSettings, ServerSettings, UpstreamSettings
from penstock.core.errors import ConfigError
from penstock.core.settings import Settings
from penstock.gateway.app import build as application
from penstock.meter.database import open_database
from penstock.router.confidence import Calibration, Curve, Target

CHAT = "/v1/chat/completions"
ASK = {"model": "auto", "messages": [{"role": "user", "content": "three words here"}], "penstock": {"explain": True}}
KEPT, DOUBTED = Answer(), Answer(tokens=("Hm",))
PRICES = """
prices = [
    { models = ["small"], prompt = 1, completion = 1 },
    { models = ["large"], prompt = 10, completion = 10 },
]
"""
# Four tokens are trusted, one is not.
BY_LENGTH = Calibration(
    model="small",
    larger="large",
    intercept=0.0,
    curves={"length": Curve((0.0, 3.0), (-4.0, 8.0))},
    longest=4,
    targets=(Target(quality=0.98, trust=0.7, kept=0.5),),
)


@dataclass
class Gateway:
    http: httpx.AsyncClient
    small: Fake
    large: Fake
    folder: Path

    async def ask(self, **fields: object) -> dict[str, Any]:
        answer = await self.http.post(CHAT, json=ASK | fields)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]


@asynccontextmanager
async def gateway(folder: Path, small: Answer, large: Answer = KEPT, **router: object) -> AsyncIterator[Gateway]:
    """Two servers behind one gateway, as settings say; its ledger is written once it is left."""
    (folder / "prices.toml").write_text(PRICES)
    (folder / "calibration.json").write_bytes(msgspec.json.encode(BY_LENGTH))
    async with AsyncExitStack() as opened:
        fakes = {name: await opened.enter_async_context(openai_fake(answer)) for name, answer in (("small", small), ("large", large))}
        tiers = {"simple": "small", "complex": "large"}
        known = {"policy": "cascade", "tiers": tiers, "auto": "small", "calibration": str(folder / "calibration.json")}
        settings = Settings(
            server=ServerSettings(data_dir=str(folder)),
            router=RouterSettings(**{**known, **router}),  # type: ignore[arg-type]
            prices=PriceSettings(file=str(folder / "prices.toml")),
            embeddings=EmbeddingSettings(enabled=False),
            page=PageSettings(enabled=False),
            upstreams=tuple(UpstreamSettings(name=name, url=fake.url, models=[name]) for name, fake in fakes.items()),
        )
        stack = await build(settings, lambda *_: None)
        opened.push_async_callback(stack.close)
        transport = httpx.ASGITransport(application(stack.pipeline, settings.server, stack.metrics))
        http = await opened.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://here", timeout=10))
        yield Gateway(http, *fakes.values(), folder)


def rows(folder: Path) -> list[tuple[object, ...]]:
    """The attempts that were written down."""
    database = open_database("sqlite", folder)
    try:
        return database.query("SELECT asked, model, purpose, reason FROM attempts ORDER BY number")
    finally:
        database.close()


def said_by(explained: dict[str, Any], rule: str) -> dict[str, Any]:
    (said,) = [said for said in explained["judgements"] if said["rule"] == rule and said["action"] not in ("small", "large")]
    return said  # type: ignore[no-any-return]


async def test_what_is_trusted_comes_from_the_small_model(tmp_path: Path) -> None:
    async with gateway(tmp_path, KEPT) as here:
        answer = await here.ask()
        assert answer["choices"][0]["message"]["content"] == "Hello, world."
        assert "logprobs" not in answer["choices"][0] or answer["choices"][0]["logprobs"] is None
        assert said_by(answer["penstock"], "cascade")["action"] == "kept"
        assert answer["penstock"]["route"] == "small/small"
        assert here.small.body["top_logprobs"] == 5
        assert not here.large.asked
    assert rows(tmp_path) == [("auto", "small", "answer", "stop")]


@pytest.mark.feature("cascade", "ledger", "explain")
async def test_what_is_not_trusted_comes_from_the_large_one_and_both_are_in_the_ledger(tmp_path: Path) -> None:
    async with gateway(tmp_path, DOUBTED) as here:
        answer = await here.ask(logprobs=True, top_logprobs=2)
        assert answer["choices"][0]["message"]["content"] == "Hello, world."
        assert len(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2
        explained = answer["penstock"]
        said = said_by(explained, "cascade")
        assert (said["action"], said["why"]) == ("escalated", "confidence 0.018 < 0.700")
        assert [(attempt["route"], attempt["purpose"]) for attempt in explained["attempts"]] == [
            ("small/small", "cascade"),
            ("large/large", "answer"),
        ]
    assert rows(tmp_path) == [("auto", "small", "cascade", "stop"), ("auto", "large", "answer", "stop")]
    assert float(explained["cost_usd"]) == pytest.approx((3 + 1 + 30 + 40) / 1e6)


@pytest.mark.feature("cascade", "streaming")
async def test_a_stream_holds_only_what_was_accepted(tmp_path: Path) -> None:
    async with gateway(tmp_path, DOUBTED) as here:
        answer = await here.http.post(CHAT, json=ASK | {"stream": True})
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    pieces = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(pieces) == "Hello, world."
    assert "Hm" not in answer.text


async def test_in_shadow_only_the_explanation_changes(tmp_path: Path) -> None:
    async with gateway(tmp_path, DOUBTED, mode="shadow") as here:
        answer = await here.ask()
        assert answer["choices"][0]["message"]["content"] == "Hm"
        said = said_by(answer["penstock"], "cascade")
        assert (said["action"], said["shadow"]) == ("escalated", True)
        assert not here.large.asked


async def test_a_client_may_ask_for_more_than_any_trust_gives(tmp_path: Path) -> None:
    async with gateway(tmp_path, KEPT) as here:
        await here.ask(penstock={"quality": 0.999})
        assert not here.small.asked


async def test_a_cascade_whose_first_model_has_no_calibration_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no calibration is known"):
        async with gateway(tmp_path, KEPT, calibration=""):
            pass


async def test_a_calibration_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(msgspec.json.encode(msgspec.structs.replace(BY_LENGTH, model="tiny")))
    with pytest.raises(ConfigError, match="which is not served"):
        async with gateway(tmp_path, KEPT, calibration=str(other)):
            pass


@pytest.mark.feature("voting", "ledger", "explain")
async def test_a_vote_gives_one_choice_and_bills_all(tmp_path: Path) -> None:
    async with gateway(tmp_path, KEPT) as here:
        answer = await here.ask(model="large", penstock={"samples": 3, "choose": "majority", "explain": True})
        assert [choice["message"]["content"] for choice in answer["choices"]] == ["Hello, world."]
        assert here.large.body["n"] == 3
        assert answer["usage"]["completion_tokens"] == 12
        said = said_by(answer["penstock"], "vote")
        assert (said["action"], said["score"]) == ("3 of 3", 1.0)
        assert float(answer["penstock"]["cost_usd"]) == pytest.approx((30 + 120) / 1e6)


async def test_what_does_not_go_with_samples_is_refused_by_name(tmp_path: Path) -> None:
    async with gateway(tmp_path, KEPT) as here:
        refused = await here.http.post(CHAT, json=ASK | {"n": 2, "penstock": {"samples": 2}})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "n"


@pytest.mark.feature("cascade", "continuous batching")
async def test_requests_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    async with gateway(tmp_path, KEPT) as here:
        answers = await asyncio.gather(*(here.ask() for _ in range(8)))
        assert {answer["choices"][0]["message"]["content"] for answer in answers} == {"Hello, world."}
