"""The published OpenAPI document: the server does what it says."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.routing import Route as ServedRoute

from penstock.core.types import Event, Finish, Request, Route, Usage, Vectors
from penstock.gateway.openapi import OpenAPI
from penstock.trace import Tab
from penstock.upstream.fake import FakeUpstream

MakeGateway = Callable[..., Any]
EXAMPLES = int(os.environ.get("PENSTOCK_SCHEMATHESIS", "8"))  # for each operation: so many valid requests, and as many that are not
DOCUMENT = OpenAPI().document
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
MODES = [(path, method, mode) for path, method in OPERATIONS for mode in GenerationMode if method == "post" or mode.is_positive]


class Able(FakeUpstream):
    """Answers with text, or with vectors where they are asked for."""

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        if request.inputs is None:
            async for event in super().stream(request, route, tab):
                yield event
            return
        tab.usage = Usage(prompt_tokens=sum(map(len, request.inputs)))
        yield Vectors(vectors=((0.5, 0.25),) * len(request.inputs))
        yield Finish(reason="stop", usage=tab.usage)


def whole(value: Any) -> Any:
    """The same with 1 for 1.0: one number in JSON, and only some clients write it so."""
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def check_shape(path: str, status: int, body: bytes, headers: Any) -> None:
    """An error is in its dialect's shape."""
    told = json.loads(body)
    if path.startswith("/v1/messages"):
        assert (set(told), set(told["error"])) == ({"type", "error", "request_id"}, {"type", "message"})
    elif path != "/ready":
        assert (set(told), set(told["error"])) == ({"error"}, {"message", "type", "param", "code"})
    assert headers["x-request-id"]


@pytest.mark.parametrize(("path", "method", "mode"), MODES)
def test_whatever_is_asked_it_answers_as_published(make_gateway: MakeGateway, path: str, method: str, mode: GenerationMode) -> None:
    """Never a 500, each answer with its published status, type and schema, each error in the dialect's shape."""
    operation = schemathesis.openapi.from_asgi("/openapi.json", make_gateway(upstream=Able()).app)[path][method]
    examples = EXAMPLES if method == "post" else 1

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.body = whole(case.body)
        if isinstance(case.body, dict) and mode.is_positive and case.body.get("model") is not None:
            case.body["model"] = "fake"
        answer = case.call()
        assert answer.status_code != 500
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])
        if answer.status_code >= 400:
            check_shape(path, answer.status_code, answer.content, answer.headers)

    ask()


def test_every_route_is_published(make_gateway: MakeGateway) -> None:
    served = {
        (route.path.replace(":path", ""), method.lower())
        for route in make_gateway().app.routes
        if isinstance(route, ServedRoute)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert served == set(OPERATIONS)


def test_schemas_are_schemas() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name
    written = json.dumps(DOCUMENT)
    assert all(json.loads(f'"{ref}"').split("/")[-1] in DOCUMENT["components"]["schemas"] for ref in refs(json.loads(written)))


def refs(value: Any) -> Iterator[str]:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from refs(item)
    if isinstance(value, dict) and isinstance(value.get("$ref"), str):
        yield value["$ref"]
