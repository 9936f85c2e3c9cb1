"""From a table of scores to answers over HTTP: train, serve, ask, and see why it went where it went."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.openai import openai_fake

from penstock.app.stack import build
from penstock.cli import main
from penstock.core.config import CacheSettings, EmbeddingSettings, LedgerSettings, RouterSettings, ServerSettings, UpstreamSettings
from penstock.core.settings import Settings
from penstock.gateway.app import build as build_app

TIERS = {"simple": "small", "complex": "large"}
SUM, PLACE = "What is 345 * 912 + 17?", "Tell me about the city called harbour"


@asynccontextmanager
async def gateway(folder: Path, **router: object) -> AsyncIterator[httpx.AsyncClient]:
    """A server of two models of others, and a client of it."""
    async with openai_fake() as small, openai_fake() as large:
        settings = Settings(
            models=(),
            upstreams=tuple(
                UpstreamSettings(name=f"at-{model}", url=fake.url, models=[model]) for model, fake in (("small", small), ("large", large))
            ),
            router=RouterSettings(tiers=TIERS, **router),  # type: ignore[arg-type]
            server=ServerSettings(data_dir=str(folder)),
            ledger=LedgerSettings(database="memory"),
            cache=CacheSettings(encoder="static"),
            embeddings=EmbeddingSettings(enabled=False),
        )
        stack = await build(settings, lambda *_: None)
        try:
            app = build_app(stack.pipeline, settings.server, stack.metrics)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
                yield http
        finally:
            await stack.close()


async def post(http: httpx.AsyncClient, text: str, **options: Any) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "penstock": {"explain": True, **options}}
    return await http.post("/v1/chat/completions", json=body)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """Trained on a table in which the small model knows places and cannot add."""
    rows = []
    for number in range(60):
        prompt = (
            f"What is {137 * number % 900 + 100} * {211 * number % 900 + 100} + {number}?" if number % 2 else f"{PLACE} number {number}"
        )
        rows += [{"prompt": prompt, "model": "small", "score": 1 - number % 2}, {"prompt": prompt, "model": "large", "score": 1}]
    table, out = tmp_path / "table.jsonl", tmp_path / "router.safetensors"
    table.write_text("\n".join(map(json.dumps, rows)))
    assert main(["router", "train", str(table), "--out", str(out), "--encoder", "static"]) == 0
    return out


@pytest.mark.feature("routing policies")
async def test_a_classifier_that_was_trained_here_routes_what_is_asked_here(tmp_path: Path, classifier: Path) -> None:
    async with gateway(tmp_path, policy="classifier", classifier=str(classifier)) as http:
        hard, easy = await post(http, SUM), await post(http, f"{PLACE} number 7")
    assert hard.headers["x-penstock-route"] == "at-large/large"
    assert easy.headers["x-penstock-route"] == "at-small/small"
    told = easy.json()["penstock"]
    (judgement,) = told["judgements"]
    assert (judgement["room"], judgement["rule"], judgement["action"]) == ("router", "classifier", "small")
    assert judgement["why"] == told["why"]
    assert told["scores"][0] == judgement["score"] > 0.8


@pytest.mark.feature("routing policies", "shadow")
async def test_rules_in_shadow_are_told_and_change_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path, policy="rules", mode="shadow") as http:
        answer = await post(http, "Prove step by step that x^2 = 2 has no rational solution")
    assert answer.headers["x-penstock-route"] == "at-small/small"
    (judgement,) = answer.json()["penstock"]["judgements"]
    assert (judgement["action"], judgement["shadow"]) == ("large", True)


@pytest.mark.feature("routing policies", "explain")
async def test_a_request_that_may_cost_too_much_is_refused_by_name(tmp_path: Path) -> None:
    async with gateway(tmp_path, policy="rules", max_cost_usd=Decimal(1)) as http:
        answer = await post(http, SUM, max_cost_usd=0.01)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "penstock.max_cost_usd"
    assert "is sure to cost at most $0.01" in answer.json()["error"]["message"]
