"""What is asked of Penstock alone, in every dialect: it reaches the pipeline, and nonsense gets an error that names the field."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from penstock.core.types import Options
from penstock.upstream.fake import FakeUpstream
from tests.wire.test_told import ASK, CHAT, TEXT, app_over, client_of

WISHES: dict[str, Any] = {"cache": "refresh", "samples": 3, "choose": "confidence", "quality": 0.9}
HONOURED = Options(cache="refresh", samples=3, choose="confidence", quality=0.9)
BODIES: dict[str, dict[str, Any]] = {
    CHAT: ASK,
    TEXT: {"prompt": "hello"},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {**ASK, "max_tokens": 9},
}


@pytest.mark.parametrize("path", BODIES)
async def test_wishes_travel_with_the_request(path: str) -> None:
    upstream = FakeUpstream()
    async with client_of(app_over(upstream)) as http:
        answer = await http.post(path, json={**BODIES[path], "model": "fake", "penstock": {"cache": "write"}})
        assert answer.status_code == 200, answer.text
    assert [request.options for request in upstream.requests] == [Options(cache="write")]


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"cache": "always"}, "penstock.cache"),
        ({"samples": 0}, "penstock.samples"),
        ({"samples": 10**6}, "penstock.samples"),
        ({"quality": 1.5}, "penstock.quality"),
        ({"max_cost_usd": 0}, "penstock.max_cost_usd"),
        ({"choose": "majority"}, "penstock.choose"),
    ],
)
async def test_nonsense_is_named(wish: dict[str, Any], param: str) -> None:
    async with client_of(app_over(FakeUpstream())) as http:
        answer = await http.post(CHAT, json={**ASK, "model": "fake", "penstock": wish})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"sample": 3}, "unknown field 'penstock.sample' (did you mean 'penstock.samples'?)"),
        ({"cache": "always"}, "penstock.cache: invalid enum value 'always' (one of 'on', 'off', 'read', 'write', 'refresh')"),
    ],
)
async def test_nonsense_is_told_what_would_be_sense(wish: dict[str, Any], says: str) -> None:
    async with client_of(app_over(FakeUpstream())) as http:
        answer = await http.post(CHAT, json={**ASK, "model": "fake", "penstock": wish})
    assert answer.json()["error"]["message"] == says


@pytest.mark.parametrize("wish", [{"samples": 2}, {"quality": 0.5}])
async def test_vectors_know_no_samples_and_no_quality(wish: dict[str, Any]) -> None:
    async with client_of(app_over(FakeUpstream())) as http:
        answer = await http.post("/v1/embeddings", json={"model": "fake", "input": "hello", "penstock": wish})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == f"penstock.{next(iter(wish))}"


async def test_what_may_cost_more_than_the_client_allows_is_not_computed() -> None:
    upstream = FakeUpstream()
    async with client_of(app_over(upstream)) as http:
        unknown = await http.post(CHAT, json={**ASK, "model": "fake", "max_tokens": 5, "penstock": {"max_cost_usd": 0.01}})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (403, "price_unknown")
    assert upstream.requests == []


def test_dollars_are_taken_as_written() -> None:
    from penstock.gateway.wire.call import PenstockFields

    assert PenstockFields(max_cost_usd=0.1).options().max_cost_usd == Decimal("0.1")
    assert PenstockFields(**WISHES).options() == HONOURED
