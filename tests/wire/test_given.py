"""A server's own defaults hold for what a client leaves unset, and for nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from penstock.upstream.openai_request import Manners, encode

ASK = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"top_p": 1.0, "temperature": 0.5}, {"top_p": 1.0, "temperature": 0.5}),
        ({"presence_penalty": 0}, {"presence_penalty": 0.0}),
    ],
)
async def test_what_is_set_to_the_default_is_sent(make_gateway: Callable[..., Any], asked: dict[str, Any], sent: dict[str, Any]) -> None:
    gateway = make_gateway()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url=gateway.url) as http:
        assert (await http.post("/v1/chat/completions", json=ASK | asked)).status_code == 200
    (request,) = gateway.upstream.requests
    body = json.loads(encode(request, "m", Manners()))
    assert {name: value for name, value in body.items() if name not in ("model", "messages", "stream", "stream_options")} == sent
