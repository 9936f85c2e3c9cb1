"""Odd requests: whatever comes in, an answer in the right shape goes out, and never a 500.

Bodies are made from the wire types themselves, so that a new field is fuzzed as soon as it exists; then some of their
values are replaced with any JSON, and some of their bytes with any bytes. `PENSTOCK_FUZZ` scales the number of examples.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from penstock.core.config import ServerSettings
from penstock.gateway.app import build
from penstock.gateway.wire.chat import ChatFields
from penstock.gateway.wire.completions import CompletionFields
from penstock.gateway.wire.fields import CHAT_NEUTRAL, COMPLETION_NEUTRAL, RANGES, RECORDED
from penstock.gateway.wire.tokens import DetokenizeFields, TokenizeFields
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.trace.metrics import Metrics
from penstock.upstream import routes_by_model
from penstock.upstream.fake import FakeUpstream, Script

SCALE = float(os.environ.get("PENSTOCK_FUZZ", "1"))
NAMES = {
    "/v1/chat/completions": (*ChatFields.__struct_fields__, *CHAT_NEUTRAL, *RECORDED),
    "/v1/completions": (*CompletionFields.__struct_fields__, *COMPLETION_NEUTRAL, *RECORDED),
    "/tokenize": TokenizeFields.__struct_fields__,
    "/detokenize": DetokenizeFields.__struct_fields__,
}

short = st.text(max_size=8)
token_id = st.integers(-1, 70_000) | st.integers()
number = st.integers(-3, 200) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalar = st.none() | st.booleans() | number | short
anything = st.recursive(scalar, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short, inner, max_size=4), max_leaves=8)
part = st.fixed_dictionaries({"type": st.just("text") | short, "text": short}, optional={"image_url": anything})
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "wizard"])},
    optional={"content": short | st.lists(part, max_size=3) | st.none(), "name": short, "tool_calls": anything, "refusal": anything},
)
PLAUSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(message, max_size=3),
    "prompt": short | st.lists(short, max_size=3) | st.lists(token_id, max_size=4) | st.lists(st.lists(token_id, max_size=3), max_size=3),
    "tokens": st.lists(token_id, max_size=6),
    "stop": short | st.lists(short, max_size=3),
    "logit_bias": st.dictionaries(token_id.map(str), number, max_size=3),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "continuous_usage_stats", "include_obfuscation"]), st.booleans()),
    "chat_template_kwargs": st.dictionaries(short, anything, max_size=3),
    "metadata": st.dictionaries(short, short, max_size=3),
    "model": st.just("fake") | st.just("fake") | short,
    "n": st.integers(0, 5),
    "max_tokens": st.integers(0, 20),
    "max_completion_tokens": st.integers(0, 20),
}


def value_of(name: str) -> st.SearchStrategy[Any]:
    """Mostly something that could be meant, sometimes any JSON."""
    if name in PLAUSIBLE:
        return PLAUSIBLE[name] | PLAUSIBLE[name] | anything
    if name in RANGES:
        return st.integers(0, 3) | number | st.floats(0, 1) | scalar
    return st.booleans() | st.lists(token_id, max_size=3) | anything


def bodies(path: str) -> st.SearchStrategy[dict[str, Any]]:
    needed = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/tokenize": "prompt", "/detokenize": "tokens"}[path]
    entries = st.lists(st.sampled_from(NAMES[path]), max_size=5, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: value_of(name) for name in (*names, needed)})
    )
    odd = st.dictionaries(st.sampled_from(NAMES[path]) | short, anything, max_size=3)
    return entries | entries | st.builds(lambda body, extra: body | extra, entries, odd)


@st.composite
def mangled(draw: st.DrawFn, path: str) -> bytes:
    """A body whose bytes were cut or replaced somewhere."""
    body = json.dumps(draw(bodies(path))).encode()
    start = draw(st.integers(0, len(body)))
    end = min(len(body), start + draw(st.integers(0, 5)))
    return body[:start] + draw(st.binary(max_size=5)) + body[end:]


class Prober:
    """Sends bodies to an application in this process, on a loop of its own."""

    def __init__(self) -> None:
        upstreams = {"fake": FakeUpstream(Script(pieces=("Hé", "llo")))}
        pipeline = Pipeline(upstreams=upstreams, router=FixedRouter(routes_by_model(upstreams)))
        app = build(pipeline, ServerSettings(), Metrics(CollectorRegistry(), ["fake"]))
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")

    def send(self, path: str, body: bytes) -> httpx.Response:
        return self._runner.run(self._client.post(path, content=body, headers={"content-type": "application/json"}))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    prober = Prober()
    yield prober
    prober.close()


def check(answer: httpx.Response) -> None:
    """An answer, a stream or a refusal, each in its shape."""
    assert answer.headers["x-request-id"]
    if answer.status_code == 200:
        if answer.headers["content-type"] == "text/event-stream":
            assert answer.text.endswith("data: [DONE]\n\n"), answer.text
        else:
            answer.json()
        return
    assert answer.status_code in (400, 404, 413), answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert len(error["message"]) < 2_000
    assert error["type"] == "invalid_request_error"


def fuzz(examples: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=round(examples * SCALE), deadline=None, suppress_health_check=checks, database=None)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@fuzz(1500)
@given(data=st.data())
def test_odd_fields(prober: Prober, path: str, data: st.DataObject) -> None:
    body = data.draw(bodies(path))
    check(prober.send(path, json.dumps(body).encode()))


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
@fuzz(400)
@given(data=st.data())
def test_odd_tokens(prober: Prober, path: str, data: st.DataObject) -> None:
    check(prober.send(path, json.dumps(data.draw(bodies(path))).encode()))


@pytest.mark.parametrize("path", list(NAMES))
@fuzz(300)
@given(data=st.data())
def test_odd_bytes(prober: Prober, path: str, data: st.DataObject) -> None:
    check(prober.send(path, data.draw(mangled(path) | st.binary(max_size=20))))
