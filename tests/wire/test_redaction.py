"""Personal data by HTTP: the model never sees it, the client gets it back, nobody writes it down."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fakes.openai import openai_fake
from fakes.server import Answer, Called, Fake

from penstock.app.stack import build
from penstock.core.config import (
    CacheSettings,
    EmbeddingSettings,
    GuardSettings,
    PageSettings,
    RuleSettings,
    ServerSettings,
    TraceSettings,
    UpstreamSettings,
)
from penstock.core.settings import Settings
from penstock.gateway.app import build as build_app

EMAIL, CARD, OTHER = "jane.doe@example.org", "4111 1111 1111 1111", "joe@example.net"
REDACT = RuleSettings(kind="pii", action="redact")
SAYS = ("I wrote to [EMA", "IL", "_1] about [CARD_1]", ".")
ARGUMENTS = '{"to": "[EMAIL_1]", "card": "[CARD_1]"}'


@asynccontextmanager
async def gateway(folder: Path, fake: Fake, *rules: RuleSettings, **rooms: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        server=ServerSettings(data_dir=str(folder)),
        upstreams=(UpstreamSettings(name="there", url=fake.url, models=["m"]),),
        guard=GuardSettings(rules=list(rules)),
        embeddings=EmbeddingSettings(enabled=False),
        **rooms,
    )
    built = await build(settings, lambda *_: None)
    try:
        app = build_app(built.pipeline, settings.server, built.metrics, auth=built.auth, page=built.page)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
            yield http
    finally:
        await built.close()


def written(folder: Path) -> list[str]:
    """All that the gateway has on disk: keys, ledger, spool."""
    return [file.read_bytes().decode("latin-1") for file in folder.rglob("*") if file.is_file()]


def asking(text: str, **more: object) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0, **more}


async def whole(http: httpx.AsyncClient, text: str) -> dict[str, Any]:
    answer = await http.post("/v1/chat/completions", json=asking(text))
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]


async def streamed(http: httpx.AsyncClient, text: str) -> dict[str, str]:
    """What the pieces of each kind say together."""
    said = {"content": "", "reasoning_content": "", "arguments": ""}
    async with http.stream("POST", "/v1/chat/completions", json=asking(text, stream=True)) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    delta = choice["delta"]
                    for name in ("content", "reasoning_content"):
                        said[name] += delta.get(name) or ""
                    for call in delta.get("tool_calls") or ():
                        said["arguments"] += call["function"].get("arguments") or ""
    return said


@pytest.mark.feature("guardrails", "streaming", "tools")
async def test_the_model_sees_placeholders_and_the_client_its_own_words(tmp_path: Path) -> None:
    answer = Answer(tokens=SAYS, thoughts=("They gave [EMAIL", "_1]."), calls=(Called("c1", "send", ARGUMENTS),))
    async with openai_fake(answer) as fake, gateway(tmp_path, fake, REDACT) as http:
        text = f"Write to {EMAIL} and charge {CARD}, then tell {EMAIL}"
        message = await whole(http, text)
        assert fake.body["messages"][0]["content"] == "Write to [EMAIL_1] and charge [CARD_1], then tell [EMAIL_1]"
        pieces = await streamed(http, text)
    assert message["content"] == pieces["content"] == f"I wrote to {EMAIL} about {CARD}."
    assert message["reasoning_content"] == pieces["reasoning_content"] == f"They gave {EMAIL}."
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"to": EMAIL, "card": CARD}
    assert json.loads(pieces["arguments"]) == {"to": EMAIL, "card": CARD}


@pytest.mark.feature("guardrails", "ledger")
@pytest.mark.parametrize("keeps_text", [False, True])
async def test_nobody_writes_down_what_was_redacted(tmp_path: Path, caplog: pytest.LogCaptureFixture, *, keeps_text: bool) -> None:
    caplog.set_level(logging.DEBUG, "penstock")
    keeping = {"page": PageSettings(keep_text=keeps_text), "trace": TraceSettings(log_prompts=keeps_text)}
    async with openai_fake(Answer(tokens=SAYS)) as fake, gateway(tmp_path, fake, REDACT, **keeping) as http:
        answer = await http.post("/v1/chat/completions", json=asking(f"Charge {CARD} for {EMAIL}", penstock={"explain": True}))
        rows, page, metrics = [await http.get(path) for path in ("/admin/requests", "/admin/requests/1", "/metrics")]
    assert rows.status_code == page.status_code == 200
    assert ("[CARD_1] for [EMAIL_1]" in page.text) == keeps_text
    explained = answer.json().get("penstock", {})
    found = [one for one in explained.get("judgements", ()) if one["room"] == "guard"]
    assert [(one["rule"], one["action"], one["why"]) for one in found] == [("pii", "redact", "it has card, email")]
    for place in (caplog.text, rows.text, page.text, metrics.text, json.dumps(explained), *written(tmp_path)):
        assert EMAIL not in place
        assert CARD not in place


@pytest.mark.feature("guardrails")
async def test_a_secret_that_the_model_says_does_not_go_out(tmp_path: Path) -> None:
    key = "sk-proj-Zx9kQ2mP7rT4vW8yB1nD5gH3jL6sF0aC"
    said = ("The key is ", key[:5], key[5:20], key[20:], ", keep", " it.")
    async with openai_fake(Answer(tokens=said)) as fake, gateway(tmp_path, fake, REDACT) as http:
        assert (await whole(http, "hello"))["content"] == "The key is [MODEL_KEY], keep it."
        assert (await streamed(http, "hello"))["content"] == "The key is [MODEL_KEY], keep it."


@pytest.mark.feature("guardrails", "exact cache")
async def test_a_cached_answer_gets_the_words_of_whoever_asks(tmp_path: Path) -> None:
    cache = CacheSettings(exact="on")
    async with openai_fake(Answer(tokens=SAYS)) as fake, gateway(tmp_path, fake, REDACT, cache=cache) as http:
        first = await whole(http, f"Charge {CARD} for {EMAIL}")
        second = await whole(http, f"Charge 5500-0000-0000-0004 for {OTHER}")
    assert len(fake.asked) == 1
    assert first["content"] == f"I wrote to {EMAIL} about {CARD}."
    assert second["content"] == f"I wrote to {OTHER} about 5500-0000-0000-0004."


@pytest.mark.feature("guardrails")
async def test_a_placeholder_of_another_request_stays_a_placeholder(tmp_path: Path) -> None:
    async with openai_fake(Answer(tokens=SAYS)) as fake, gateway(tmp_path, fake, REDACT) as http:
        await whole(http, f"Charge {CARD} for {EMAIL}")
        assert (await whole(http, "What did you do?"))["content"] == "".join(SAYS)


@pytest.mark.feature("guardrails")
async def test_what_is_refused_never_reaches_a_model(tmp_path: Path) -> None:
    rule = RuleSettings(kind="pii", action="refuse", patterns=["card"])
    async with openai_fake() as fake, gateway(tmp_path, fake, rule) as http:
        refused = await http.post("/v1/chat/completions", json=asking(f"Charge {CARD}"))
        allowed = await http.post("/v1/chat/completions", json=asking(f"Write to {EMAIL}"))
    assert (refused.status_code, allowed.status_code) == (400, 200)
    assert refused.json()["error"]["code"] == "content_filter"
    assert CARD not in refused.text
    assert len(fake.asked) == 1


def test_the_settings_name_what_is_looked_for() -> None:
    rule = msgspec.toml.decode(b'kind = "pii"\naction = "redact"\npatterns = ["email", "secrets"]\nregions = ["US"]', type=RuleSettings)
    assert (rule.patterns, rule.regions) == (["email", "secrets"], ["US"])
