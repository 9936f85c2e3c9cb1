"""No field is silently ignored: each is honoured, recorded, or refused by its name."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.core.types import Sampling
from penstock.gateway.wire.chat import ChatFields
from penstock.gateway.wire.completions import CompletionFields
from penstock.gateway.wire.fields import CHAT_NEUTRAL, COMPLETION_NEUTRAL, RECORDED, Neutral
from penstock.upstream.fake import FakeUpstream

ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
    "text": ("/v1/completions", {"prompt": "hello"}),
}
NEUTRAL = [(route, name, field) for route, table in (("chat", CHAT_NEUTRAL), ("text", COMPLETION_NEUTRAL)) for name, field in table.items()]
HONOURED: list[tuple[str, object, str, object]] = [
    ("temperature", 0.5, "temperature", 0.5),
    ("top_p", 0.9, "top_p", 0.9),
    ("top_k", 7, "top_k", 7),
    ("top_k", -1, "top_k", None),
    ("top_k", 0, "top_k", None),
    ("min_p", 0.1, "min_p", 0.1),
    ("seed", -5, "seed", -5),
    ("max_tokens", 9, "max_tokens", 9),
    ("max_completion_tokens", 9, "max_tokens", 9),
    ("min_tokens", 2, "min_tokens", 2),
    ("repetition_penalty", 1.5, "repetition_penalty", 1.5),
    ("frequency_penalty", -1, "frequency_penalty", -1.0),
    ("presence_penalty", 2, "presence_penalty", 2.0),
    ("logit_bias", {"5": -3}, "logit_bias", {5: -3.0}),
    ("stop", "x", "stop", ("x",)),
    ("stop", ["x", "y"], "stop", ("x", "y")),
    ("stop_token_ids", [1, 2], "stop_token_ids", (1, 2)),
    ("include_stop_str_in_output", True, "include_stop_str_in_output", True),
    ("ignore_eos", True, "ignore_eos", True),
    ("bad_words", ["no"], "bad_words", ("no",)),
    ("allowed_token_ids", [3], "allowed_token_ids", (3,)),
    ("prompt_logprobs", 2, "prompt_logprobs", 2),
    ("skip_special_tokens", False, "skip_special_tokens", False),
]
HONOURED_BY_REQUEST: list[tuple[str, object, str, object]] = [
    ("n", 4, "n", 4),
    ("priority", -3, "priority", -3),
    ("truncate_prompt_tokens", 8, "truncate_prompt_tokens", 8),
    ("cache_salt", "team", "tenant", "\x1fteam"),
    ("add_special_tokens", True, "add_special_tokens", True),
    ("add_special_tokens", False, "add_special_tokens", False),
]


@pytest.mark.parametrize(("route", "name", "field"), NEUTRAL)
async def test_what_is_not_honoured_is_refused_by_name(http: httpx.AsyncClient, route: str, name: str, field: Neutral) -> None:
    path, body = ROUTES[route]
    answer = await http.post(path, json=body | {name: {"something": "asked"}})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"], error["type"]) == (name, "unsupported_parameter", "invalid_request_error")
    assert name in error["message"]
    assert field.why in error["message"]


@pytest.mark.parametrize(("route", "name", "field"), NEUTRAL)
async def test_values_that_ask_for_nothing_are_accepted(http: httpx.AsyncClient, route: str, name: str, field: Neutral) -> None:
    path, body = ROUTES[route]
    for value in (None, *field.values):
        assert (await http.post(path, json=body | {name: value})).status_code == 200


@pytest.mark.parametrize("route", ["chat", "text"])
@pytest.mark.parametrize(("name", "value", "sampled", "expected"), HONOURED)
async def test_sampling_fields_reach_the_model(
    http: httpx.AsyncClient, gateway: Any, route: str, name: str, value: object, sampled: str, expected: object
) -> None:
    path, body = ROUTES[route]
    assert (await http.post(path, json=body | {name: value})).status_code == 200
    assert getattr(gateway.upstream.requests[0].sampling, sampled) == expected


@pytest.mark.parametrize("route", ["chat", "text"])
@pytest.mark.parametrize(("name", "value", "asked", "expected"), HONOURED_BY_REQUEST)
async def test_request_fields_reach_the_model(
    http: httpx.AsyncClient, gateway: Any, route: str, name: str, value: object, asked: str, expected: object
) -> None:
    path, body = ROUTES[route]
    assert (await http.post(path, json=body | {name: value})).status_code == 200
    assert getattr(gateway.upstream.requests[0], asked) == expected


@pytest.mark.parametrize("route", ["chat", "text"])
async def test_null_means_unset(http: httpx.AsyncClient, route: str) -> None:
    path, body = ROUTES[route]
    fields = ChatFields if route == "chat" else CompletionFields
    nulls = {name: None for name in (*fields.__struct_fields__, *RECORDED) if name not in body}
    assert (await http.post(path, json=body | nulls)).status_code == 200


async def test_unset_fields_take_the_models_defaults(make_gateway: Any) -> None:
    upstream = FakeUpstream(default_sampling=Sampling(temperature=0.3, top_k=20, repetition_penalty=1.1))
    app = make_gateway(upstream=upstream).app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        await http.post(ROUTES["chat"][0], json=ROUTES["chat"][1] | {"temperature": 0.9})
        await http.post(ROUTES["text"][0], json=ROUTES["text"][1] | {"top_k": -1})
    chat, text = (request.sampling for request in upstream.requests)
    assert (chat.temperature, chat.top_k, chat.repetition_penalty, chat.max_tokens) == (0.9, 20, 1.1, None)
    assert (text.temperature, text.top_k, text.max_tokens) == (0.3, None, 16)


async def test_how_a_conversation_is_rendered(http: httpx.AsyncClient, gateway: Any) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "user", "content": parts, "name": "ann"}, {"role": "assistant", "content": "thr", "tool_calls": None}]
    body = {"messages": messages, "continue_final_message": True, "chat_template_kwargs": {"thinking": False}}
    assert (await http.post(ROUTES["chat"][0], json=body)).status_code == 200
    request = gateway.upstream.requests[0]
    assert [(message.content, message.name) for message in request.messages] == [("one\ntwo", "ann"), ("thr", None)]
    assert (request.continue_final_message, request.add_generation_prompt) == (True, False)
    assert request.chat_template_kwargs == {"thinking": False}
    assert request.add_special_tokens is False


@pytest.mark.parametrize(
    ("given", "near"), [("temprature", "temperature"), ("max_token", "max_tokens"), ("respose_format", "response_format")]
)
async def test_an_unknown_field_names_the_closest(http: httpx.AsyncClient, given: str, near: str) -> None:
    path, body = ROUTES["chat"]
    error = (await http.post(path, json=body | {given: 1})).json()["error"]
    assert error["param"] == given
    assert f"did you mean '{near}'?" in error["message"]


async def test_an_unknown_field_with_nothing_near(http: httpx.AsyncClient) -> None:
    path, body = ROUTES["text"]
    error = (await http.post(path, json=body | {"zzzzzz": None})).json()["error"]
    assert (error["param"], error["message"]) == ("zzzzzz", "unknown field 'zzzzzz'")


async def test_labels_go_to_the_access_log_and_prompts_never(http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="penstock")
    path, body = ROUTES["chat"]
    await http.post(path, json=body | {"user": "ann", "metadata": {"team": "blue"}, "messages": [{"role": "user", "content": "s3cret"}]})
    lines = [record.fields for record in caplog.records if record.name == "penstock.gateway.edge"]  # type: ignore[attr-defined]
    assert [line["labels"] for line in lines] == [{"user": "ann", "metadata": {"team": "blue"}}]
    assert "s3cret" not in str([record.__dict__ for record in caplog.records])


@pytest.mark.parametrize(("schema", "route"), [("CreateChatCompletionRequest", "chat"), ("CreateCompletionRequest", "text")])
def test_every_field_of_openais_schema_has_its_place(shared_data: Path, schema: str, route: str) -> None:
    fields, table = (ChatFields, CHAT_NEUTRAL) if route == "chat" else (CompletionFields, COMPLETION_NEUTRAL)
    text = (shared_data / "specs" / "openai_openapi" / "openapi.yaml").read_text()
    known = {*fields.__struct_fields__, *table, *RECORDED}
    missing = _properties(text, schema) - known
    assert not missing


def _properties(text: str, schema: str) -> set[str]:
    """The schema's own properties, and those of the schemas that it is made of, read by their indentation."""
    body = re.search(rf"^    {schema}:\n((?:      .*\n|\n)+)", text, re.MULTILINE)
    assert body is not None
    own = re.search(r"^( +)properties:\n((?:\1  .*\n|\n)+)", body[1], re.MULTILINE)
    names = set(re.findall(rf"^{own[1]}  (\w+):", own[2], re.MULTILINE)) if own else set()
    for inner in re.findall(r"^ {8}- \$ref: \"#/components/schemas/(\w+)\"", body[1], re.MULTILINE):
        names |= _properties(text, inner)
    return names
