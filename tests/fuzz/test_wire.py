"""Odd requests: whatever comes in, an answer in the right shape goes out, and never a 500.

Bodies are made from the wire types themselves, so that a new field is fuzzed as soon as it exists; then some of their
values are replaced with any JSON, and some of their bytes with any bytes. `PENSTOCK_FUZZ` scales the number of examples.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from penstock.app import stack as stacked
from penstock.core.config import EngineSpec, ModelSettings, ServerSettings
from penstock.core.settings import Settings
from penstock.gateway.app import build
from penstock.gateway.wire.chat import ChatFields
from penstock.gateway.wire.completions import CompletionFields
from penstock.gateway.wire.fields import CHAT_NEUTRAL, COMPLETION_NEUTRAL, RANGES, RECORDED, RESPONSES_NEUTRAL, TOKENIZE_NEUTRAL
from penstock.gateway.wire.responses import ResponsesFields
from penstock.gateway.wire.tokens import DetokenizeFields, TokenizeFields
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.trace.metrics import Metrics
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script

SCALE = float(os.environ.get("PENSTOCK_FUZZ", "1"))
NAMES = {
    "/v1/chat/completions": (*ChatFields.__struct_fields__, *CHAT_NEUTRAL, *RECORDED),
    "/v1/completions": (*CompletionFields.__struct_fields__, *COMPLETION_NEUTRAL, *RECORDED),
    "/v1/responses": (*ResponsesFields.__struct_fields__, *RESPONSES_NEUTRAL, *RECORDED),
    "/tokenize": (*TokenizeFields.__struct_fields__, *TOKENIZE_NEUTRAL),
    "/detokenize": DetokenizeFields.__struct_fields__,
}

short = st.text(max_size=8)
token_id = st.integers(0, 70_000)
number = st.integers(-3, 200) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


def texts(size: int) -> st.SearchStrategy[str]:
    return st.text(min_size=1, max_size=size)


scalar = st.none() | st.booleans() | number | short
anything = st.recursive(scalar, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short, inner, max_size=4), max_leaves=8)
part = st.fixed_dictionaries({"type": st.just("text"), "text": short}, optional={"image_url": scalar})
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": short | st.lists(part, min_size=1, max_size=3)},
    optional={"name": short, "refusal": st.none()},
)
odd_message = st.fixed_dictionaries({"role": short}, optional={"content": anything, "tool_calls": anything, "colour": scalar})
name = st.sampled_from(["f", "g", "h", "i", "a b"])
parameters = st.dictionaries(short, anything, max_size=2)
function = st.fixed_dictionaries({"name": name}, optional={"description": short, "parameters": parameters, "strict": st.booleans()})
called = st.fixed_dictionaries(
    {"id": name, "type": st.just("function"), "function": st.fixed_dictionaries({"name": name, "arguments": short})}
)
calling = st.fixed_dictionaries({"role": st.just("assistant"), "tool_calls": st.lists(called, max_size=2)}, optional={"reasoning": short})
answering = st.fixed_dictionaries({"role": st.just("tool"), "content": short}, optional={"tool_call_id": name})
tool = st.fixed_dictionaries({"type": st.sampled_from(["function", "function", "custom"]), "function": function}) | function.map(
    lambda flat: {"type": "function", **flat}
)
formats = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "json_object", "json_schema", "xml"])},
    optional={"json_schema": st.fixed_dictionaries({"name": name}, optional={"schema": anything}), "name": name, "schema": anything},
)
item = st.one_of(
    message,
    st.fixed_dictionaries({"type": st.just("message"), "role": st.just("user"), "content": st.lists(part | anything, max_size=2)}),
    st.fixed_dictionaries({"type": st.just("function_call"), "call_id": name, "name": name, "arguments": short}, optional={"id": scalar}),
    st.fixed_dictionaries({"type": st.just("function_call_output"), "call_id": name, "output": short | anything}),
    st.fixed_dictionaries({"type": st.just("reasoning"), "summary": anything}, optional={"content": anything}),
    st.fixed_dictionaries({"type": anything}, optional={"id": anything}),
)
NEUTRAL = {**CHAT_NEUTRAL, **COMPLETION_NEUTRAL, **RESPONSES_NEUTRAL, **TOKENIZE_NEUTRAL}
PLAUSIBLE: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.sampled_from([None, *field.values]) for name, field in NEUTRAL.items()},
    **{name: st.integers(1, 20) if "token" in name else st.sampled_from([0, 1, 0.5, 2]) for name in RANGES},
    "logprobs": st.booleans() | st.integers(0, 3),
    "messages": st.lists(message, min_size=1, max_size=3) | st.lists(message | calling | answering | odd_message, max_size=3),
    "input": texts(8) | st.lists(item, max_size=3),
    "tools": st.lists(tool, max_size=2),
    "instructions": short,
    "tool_choice": st.sampled_from(
        ["auto", "none", "required", {"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}]
    ),
    "response_format": formats,
    "text": st.fixed_dictionaries({}, optional={"format": formats, "verbosity": short}),
    "reasoning": st.fixed_dictionaries({}, optional={"effort": st.sampled_from(["low", "none", "?"]), "summary": short}),
    "reasoning_effort": st.sampled_from(["low", "none", "?"]),
    "include": st.lists(st.just("message.output_text.logprobs"), max_size=1),
    "penstock": st.fixed_dictionaries({}, optional={"explain": scalar}),
    "prompt": texts(8)
    | st.lists(texts(8), max_size=3)
    | st.lists(token_id, max_size=4)
    | st.lists(st.lists(token_id, max_size=3), max_size=3),
    "tokens": st.lists(token_id, max_size=6),
    "stop": texts(8) | st.lists(texts(8), max_size=3),
    "logit_bias": st.dictionaries(token_id.map(str), st.floats(-100, 100), max_size=3),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "continuous_usage_stats"]), st.booleans()),
    "chat_template_kwargs": st.dictionaries(short, anything, max_size=3),
    "metadata": st.dictionaries(short, short, max_size=3),
    "model": st.just("fake"),
    "request_id": st.just("an-id") | short,
    "user": short,
    "safety_identifier": short,
    "prompt_cache_key": short,
    "cache_salt": texts(8),
    "bad_words": st.lists(texts(8), max_size=2),
    "stop_token_ids": st.lists(token_id, max_size=3),
    "allowed_token_ids": st.lists(token_id, min_size=1, max_size=3),
    "stream": st.just(True) | st.booleans(),
}


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 15).flatmap(lambda drawn: odd if drawn == 15 else usual)


def value_of(name: str) -> st.SearchStrategy[Any]:
    """Mostly something that could be meant, sometimes any JSON, sometimes a number that is too much."""
    return mostly(PLAUSIBLE.get(name, st.booleans()), anything | number)


def bodies(path: str) -> st.SearchStrategy[dict[str, Any]]:
    """A few fields, the one that is needed among them, and now and then one that nobody knows."""
    needed = {"/v1/chat/completions": "messages", "/v1/responses": "input", "/detokenize": "tokens"}.get(path, "prompt")
    known = st.one_of([st.tuples(st.just(name), value_of(name)) for name in NAMES[path]])
    fields = st.lists(mostly(known, st.tuples(short, anything)), max_size=5)
    first = short if path == "/tokenize" else value_of(needed)
    return st.builds(lambda first, rest: {needed: first} | dict(rest), first, fields)


BODIES = {path: bodies(path) for path in NAMES}


@st.composite
def mangled(draw: st.DrawFn, path: str) -> bytes:
    """A body whose bytes were cut or replaced somewhere."""
    body = json.dumps(draw(BODIES[path])).encode()
    start = draw(st.integers(0, len(body)))
    end = min(len(body), start + draw(st.integers(0, 5)))
    return body[:start] + draw(st.binary(max_size=5)) + body[end:]


class Prober:
    """Sends bodies to an application in this process, on a loop of its own."""

    def __init__(self, make: Callable[[], Awaitable[tuple[Pipeline, Metrics]]]) -> None:
        self._runner = asyncio.Runner()
        self._pipeline, metrics = self._runner.run(_awaited(make))
        app = build(self._pipeline, ServerSettings(), metrics)
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway", timeout=60)

    def send(self, path: str, body: bytes) -> httpx.Response:
        return self._runner.run(self._client.post(path, content=body, headers={"content-type": "application/json"}))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._pipeline.close())
        self._runner.close()


async def _awaited(make: Callable[[], Awaitable[tuple[Pipeline, Metrics]]]) -> tuple[Pipeline, Metrics]:
    return await make()


async def scripted() -> tuple[Pipeline, Metrics]:
    upstreams = {"fake": FakeUpstream(Script(pieces=("Hé", "llo")))}
    pipeline = Pipeline(dispatch=Dispatch(upstreams), router=FixedRouter(routes_by_model(upstreams)))
    return pipeline, Metrics(CollectorRegistry(), ["fake"])


async def real() -> tuple[Pipeline, Metrics]:
    engine = EngineSpec(in_process=True, device="cpu", threads=1, max_model_len=256, max_num_seqs=32)
    model = ModelSettings(name="fake", engine=engine)
    stack = await stacked.build(Settings(server=ServerSettings(), models=(model,), sources={}), lambda name, loading: None)
    return stack.pipeline, stack.metrics


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    """Over a scripted upstream."""
    with closing(Prober(scripted)) as prober:
        yield prober


@pytest.fixture(scope="module")
def engine_prober() -> Iterator[Prober]:
    """Over the engine and the built-in model."""
    with closing(Prober(real)) as prober:
        yield prober


def check(answer: httpx.Response) -> None:
    """An answer, a stream or a refusal, each in its shape."""
    assert answer.headers["x-request-id"]
    if answer.status_code == 200:
        if answer.headers["content-type"] == "text/event-stream":
            ends = "data: [DONE]\n\n", "unknown\n\n"  # of a response comes the cost last
            assert answer.text.endswith(ends), answer.text
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


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
@fuzz(1000)
@given(data=st.data())
def test_odd_fields(prober: Prober, path: str, data: st.DataObject) -> None:
    body = data.draw(BODIES[path])
    check(prober.send(path, json.dumps(body).encode()))


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
@fuzz(400)
@given(data=st.data())
def test_odd_tokens(prober: Prober, path: str, data: st.DataObject) -> None:
    check(prober.send(path, json.dumps(data.draw(BODIES[path])).encode()))


@pytest.mark.parametrize("path", list(NAMES))
@fuzz(300)
@given(data=st.data())
def test_odd_bytes(prober: Prober, path: str, data: st.DataObject) -> None:
    check(prober.send(path, data.draw(mangled(path) | st.binary(max_size=20))))


@pytest.mark.parametrize("path", list(NAMES))
@fuzz(60)
@given(data=st.data())
def test_odd_fields_on_the_engine(engine_prober: Prober, path: str, data: st.DataObject) -> None:
    body = data.draw(BODIES[path])
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    few = {limit: 4} if path.startswith("/v1") and "max_completion_tokens" not in body else {}
    check(engine_prober.send(path, json.dumps(few | body).encode()))
