"""What an answer tells of itself: the headers, the cost at the end of a stream, and the explanation that may be asked for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import pytest
from openai import OpenAI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.core.config import ServerSettings
from penstock.core.errors import Overloaded, UpstreamFailed
from penstock.core.types import Delta, EngineUse, Principal, Route, Usage
from penstock.gateway.app import build
from penstock.gateway.edge import Edge, exchange_of
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.trace.metrics import Metrics
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script
from tests.wire.played import USAGE, Played

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
SPOKEN = (Delta(text="Hello", token_ids=(1,)), Delta(text=".", token_ids=(2,), finish_reason="stop"))


class Prices:
    """A tenth of a microdollar for each token."""

    def cost(self, route: Route, usage: Usage, use: EngineUse | None) -> Decimal | None:
        return Decimal("0.0000001") * usage.total_tokens

    def worst(self, route: Route, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        return None


def app_over(*upstreams: FakeUpstream, priced: bool = True) -> ASGIApp:
    """The application over upstreams called a, b, …, all with the same model."""
    named = dict(zip("abc", upstreams, strict=False))
    prices = {"pricing": Prices()} if priced else {}
    pipeline = Pipeline(dispatch=Dispatch(named), router=FixedRouter(routes_by_model(named)), **prices)  # type: ignore[arg-type]
    return build(pipeline, ServerSettings(port=0), Metrics(CollectorRegistry(), ["fake"]))


@asynccontextmanager
async def client_of(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        yield http


def told(answer: httpx.Response) -> dict[str, str]:
    return {name.removeprefix("x-penstock-"): value for name, value in answer.headers.items() if name.startswith("x-penstock-")}


def explained(answer: httpx.Response) -> list[dict[str, Any]]:
    """Every explanation in an answer or its chunks."""
    events = [answer.text]
    if answer.headers["content-type"] == "text/event-stream":
        events = [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part.startswith("data: {")]
    return [body["penstock"] for body in map(json.loads, events) if "penstock" in body]


# Headers


async def test_a_whole_answer_says_its_cost_and_where_it_came_from() -> None:
    async with client_of(app_over(Played(*SPOKEN))) as http:
        answer = await http.post(CHAT, json=ASK)
    assert told(answer) == {"cost": "0.0000017", "model": "fake", "route": "a/fake", "cache": "off"}
    assert "penstock" not in answer.json()


async def test_a_stream_says_its_cost_when_it_is_known() -> None:
    async with client_of(app_over(Played(*SPOKEN))) as http:
        answer = await http.post(CHAT, json=ASK | {"stream": True})
    assert told(answer) == {"cost": "pending", "model": "fake", "route": "a/fake", "cache": "off"}
    assert answer.text.endswith("\n\n: x-penstock-cost 0.0000017\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_cost_is_not_zero(stream: bool) -> None:
    async with client_of(app_over(Played(*SPOKEN), priced=False)) as http:
        answer = await http.post(CHAT, json=ASK | {"stream": stream})
    assert "unknown" in (answer.text if stream else told(answer)["cost"])


async def test_several_prompts_cost_what_they_cost_together() -> None:
    async with client_of(app_over(Played(*SPOKEN))) as http:
        answer = await http.post(TEXT, json={"prompt": ["a", "b", "c"]})
    assert told(answer)["cost"] == "0.0000051"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_says_what_was_spent_on_it(stream: bool) -> None:
    failing = Played(error=UpstreamFailed("it broke off"))
    async with client_of(app_over(failing)) as http:
        answer = await http.post(CHAT, json=ASK | {"stream": stream})
    assert answer.status_code == 502
    assert told(answer)["route"] == "a/fake"
    assert Decimal(told(answer)["cost"]) % (Decimal("0.0000001") * USAGE.total_tokens) == 0


async def test_a_stream_that_breaks_off_says_what_was_spent_on_it() -> None:
    async with client_of(app_over(Played(Delta(text="so far"), error=UpstreamFailed("it broke off")))) as http:
        answer = await http.post(CHAT, json=ASK | {"stream": True})
    *_, cost, error, _ = answer.text.split("\n\n")
    assert cost == ": x-penstock-cost 0.0000017"
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "upstream_error"


async def test_what_was_never_routed_has_no_route() -> None:
    async with client_of(app_over(Played(*SPOKEN))) as http:
        answer = await http.post(CHAT, json=ASK | {"model": "other"})
    assert (answer.status_code, told(answer)) == (404, {"cost": "0", "cache": "off"})


async def test_a_name_that_is_no_header_is_quoted() -> None:
    async with client_of(app_over(FakeUpstream(model="mödel\r\nx: y"))) as http:
        answer = await http.post(CHAT, json=ASK)
    assert told(answer)["model"] == "m%C3%B6del%0D%0Ax: y".replace(" ", " ")


def test_the_official_client_does_not_see_the_comment(make_client: Callable[..., OpenAI]) -> None:
    chunks = make_client().chat.completions.create(model="fake", messages=ASK["messages"], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello, world."


# Explanations


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize(("path", "ask"), [(CHAT, ASK), (TEXT, {"prompt": "hello"})])
@pytest.mark.feature("explain", "streaming")
async def test_it_explains_itself_where_that_is_asked_for(path: str, ask: dict[str, Any], stream: bool, header: bool) -> None:
    asked = {} if header else {"penstock": {"explain": True}}
    async with client_of(app_over(Played(*SPOKEN))) as http:
        answer = await http.post(path, json=ask | asked | {"stream": stream}, headers={"x-penstock-explain": "true"} if header else {})
    (said,) = explained(answer)
    assert (said["request_id"], said["route"], said["model"]) == (answer.headers["x-request-id"], "a/fake", "fake")
    assert (said["why"], said["cache"], said["judgements"]) == ("serves 'fake'", "off", [])
    assert said["cost_usd"] == "0.0000017"
    assert said["usage"]["completion_tokens"] == USAGE.completion_tokens
    assert said["timings"]["e2e_s"] >= said["timings"]["ttft_s"] > 0
    noted = [(stage["name"], stage["note"]) for stage in said["stages"]]
    assert noted[:3] == [("guard", "allow"), ("cache", "off"), ("route", "serves 'fake'")]


async def test_a_body_may_decline_what_a_header_asks_for() -> None:
    async with client_of(app_over(Played(*SPOKEN))) as http:
        answer = await http.post(CHAT, json=ASK | {"penstock": {"explain": False}}, headers={"x-penstock-explain": "true"})
    assert not explained(answer)


@pytest.mark.feature("explain", "retries")
async def test_every_attempt_is_explained() -> None:
    first = FakeUpstream(Script(error=Overloaded("the queue is full")))
    async with client_of(app_over(first, Played(*SPOKEN))) as http:
        answer = await http.post(CHAT, json=ASK | {"penstock": {"explain": True}})
    (said,) = explained(answer)
    assert said["route"] == told(answer)["route"] == "b/fake"
    assert said["candidates"] == ["a/fake", "b/fake"]
    assert {(attempt["route"], attempt["failure"]) for attempt in said["attempts"]} == {("a/fake", "overloaded"), ("b/fake", None)}


async def test_the_explanation_comes_last_in_a_chunk_without_choices() -> None:
    asked = ASK | {"stream": True, "stream_options": {"include_usage": True}, "penstock": {"explain": True}}
    async with client_of(app_over(Played(*SPOKEN))) as http:
        answer = await http.post(CHAT, json=asked)
    chunks = [json.loads(part.removeprefix("data: ")) for part in answer.text.split("\n\n") if part.startswith("data: {")]
    assert ["penstock" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], None)
    assert chunks[-2]["usage"]["completion_tokens"] == USAGE.completion_tokens


async def test_several_prompts_are_not_explained(http: httpx.AsyncClient) -> None:
    answer = await http.post(TEXT, json={"prompt": ["a", "b"], "penstock": {"explain": True}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "penstock.explain")


# On whose behalf


class Known:
    """Says who asks."""

    def __init__(self, app: ASGIApp, principal: Principal) -> None:
        self._app = app
        self._principal = principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).principal = self._principal
        await self._app(scope, receive, send)


@asynccontextmanager
async def asking(gateway: Any, principal: Principal) -> AsyncIterator[httpx.AsyncClient]:
    app = Edge(Known(gateway.app.router, principal))
    async with client_of(app) as http:
        yield http


@pytest.mark.parametrize(("path", "ask"), [(CHAT, ASK), (TEXT, {"prompt": "x"}), ("/v1/responses", {"input": "x"})])
async def test_a_request_runs_on_behalf_of_its_key(gateway: Any, path: str, ask: dict[str, Any]) -> None:
    principal = Principal(key_id="k1", tenant="blue", admin=False)
    async with asking(gateway, principal) as http:
        assert (await http.post(path, json=ask)).status_code == 200
    (request,) = gateway.upstream.requests
    assert (request.principal, request.tenant) == (principal, "blue")


async def test_a_salt_parts_a_tenants_cache_and_leads_into_no_other(gateway: Any) -> None:
    async with asking(gateway, Principal(key_id="k1", tenant="blue", admin=False)) as http:
        for salt in ("green", "\x1fgreen"):
            await http.post(CHAT, json=ASK | {"cache_salt": salt})
    assert [request.tenant for request in gateway.upstream.requests] == ["blue\x1fgreen", "blue\x1f\x1fgreen"]


@pytest.mark.parametrize(("admin", "priority", "status"), [(True, -1, 200), (False, -1, 403), (False, 0, 200), (False, 5, 200)])
async def test_only_admins_go_before_others(gateway: Any, admin: bool, priority: int, status: int) -> None:
    async with asking(gateway, Principal(key_id="k1", admin=admin)) as http:
        answer = await http.post(CHAT, json=ASK | {"priority": priority})
    assert answer.status_code == status
    if status == 403:
        assert (answer.json()["error"]["param"], answer.json()["error"]["type"]) == ("priority", "permission_error")
