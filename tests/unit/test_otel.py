"""Spans in OpenTelemetry's conventions for generative AI, as a collector receives them over OTLP/HTTP."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from decimal import Decimal

import pytest
from collector import Collector, attributes, collecting

from penstock.core.config import TraceSettings
from penstock.core.errors import ConfigError, MissingExtra, UpstreamFailed
from penstock.core.types import (
    Attempt,
    Decision,
    EngineUse,
    Finish,
    Message,
    Principal,
    Request,
    Route,
    Sampling,
    Stage,
    Timings,
    Usage,
)
from penstock.trace import Accepted, Ended
from penstock.trace.otel import Spans, endpoint, request_attributes

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

FIRST, SECOND = Route(upstream="vllm", model="qwen"), Route(upstream="here", model="qwen")
FAILURE = UpstreamFailed("it broke off").failure()
ASKED = Request(
    id="r1", model="best", messages=(Message(role="user", content="a secret"),), sampling=Sampling(max_tokens=50, temperature=0.5),
    principal=Principal(key_id="k1", name="team"),
)  # fmt: skip


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as received:
        yield received


def attempt(number: int, route: Route, **fields: object) -> Attempt:
    given = {"id": f"r1#{number}", "request_id": "r1", "key_id": "k1", "tenant": "k1", "model": "best", "started_at": 1000.0 + number}
    return Attempt(number=number, route=route, **given, **fields)


def ended() -> Ended:
    usage = Usage(prompt_tokens=7, completion_tokens=40, cached_tokens=3)
    timings = Timings(queue_s=0.25, ttft_s=1.5, tpot_s=0.01, e2e_s=3.0)
    return Ended(
        request=ASKED,
        decision=Decision(route=SECOND, candidates=(FIRST, SECOND), why="the alias best"),
        finish=Finish(reason="stop", usage=usage, timings=timings, cost_usd=Decimal("0.0000125")),
        arrived_at=1000.0,
        stages=(Stage(name="cache", start_s=0.0, end_s=0.5), Stage(name="route", start_s=0.5, end_s=0.75, note="an alias")),
        attempts=(
            attempt(0, FIRST, purpose="answer", reason="error", failure="upstream_error", timings=Timings(e2e_s=0.5), cost_usd=None),
            attempt(
                1, SECOND, purpose="retry", reason="stop", usage=usage, use=EngineUse(prefill_s=0.5, decode_s=1.0, kv_s=1.5),
                timings=Timings(ttft_s=0.5, e2e_s=2.0), cost_usd=Decimal("0.0000125"),
            ),
        ),
    )  # fmt: skip


def told(collector: Collector, *events: Ended) -> None:
    spans = Spans(TraceSettings(otlp=collector.url, service_name="gateway-1"))
    spans(Accepted(ASKED))
    for event in events:
        spans(event)
    spans.close()


def test_a_request_is_one_trace_of_its_stages_and_attempts(collector: Collector) -> None:
    told(collector, ended())
    assert (collector.paths, collector.service) == (["/v1/traces"], "gateway-1")
    whole = collector.span("chat best")
    assert len(collector.spans) == 5
    assert {span.trace_id for span in collector.spans} == {whole.trace_id}
    assert {span.parent_span_id for span in collector.spans} == {b"", whole.span_id}
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (1000 * 10**9, 1003 * 10**9)
    stage = collector.span("route")
    assert (stage.start_time_unix_nano, stage.end_time_unix_nano) == (1_000_500_000_000, 1_000_750_000_000)


def test_the_attributes_are_those_of_the_conventions(collector: Collector) -> None:
    told(collector, ended())
    found = attributes(collector.span("chat best"))
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "best",
        "gen_ai.response.model": "qwen",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "penstock.key": "k1",
        "penstock.upstream": "here",
        "penstock.why": "the alias best",
        "penstock.cost_usd": "0.0000125",
    }
    assert {name: found.get(name) for name in expected} == expected


def test_each_attempt_has_its_own_outcome(collector: Collector) -> None:
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    told(collector, ended())
    failed, worked = (span for span in collector.spans if span.name == "chat qwen")
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == "upstream_error"
    assert "penstock.cost_usd" not in attributes(failed), "an unknown cost is not told as zero"
    assert attributes(worked)["penstock.purpose"] == "retry"
    assert attributes(worked)["penstock.prefill_s"] == 0.5
    assert (worked.events[0].name, worked.events[0].time_unix_nano) == ("first token", 1_001_500_000_000)


def test_what_was_said_is_not_told(collector: Collector) -> None:
    told(collector, ended())
    assert "secret" not in str(collector.spans)


def test_a_refused_request_is_told_too(collector: Collector) -> None:
    told(collector, Ended(ASKED, None, Finish(reason="error", failure=FAILURE, timings=Timings(e2e_s=0.1)), arrived_at=1.0))
    (span,) = collector.spans
    assert attributes(span)["error.type"] == "upstream_error"
    assert span.status.message == "it broke off"


def test_the_names_are_those_that_opentelemetry_has() -> None:
    known = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    names = {value for name, value in vars(known).items() if name.startswith("GEN_AI_")}
    used = {name for name in request_attributes(ended()) if name.startswith("gen_ai.")}
    assert used <= names


@pytest.mark.parametrize("otlp", ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"])
def test_a_collector_s_address_is_enough(otlp: str) -> None:
    assert endpoint(otlp) == "http://c:4318/v1/traces"


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="'localhost:4318'"):
        endpoint("localhost:4318")


def test_a_collector_that_is_down_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.trace.otel.EXPORT_S", 0.2)
    spans = Spans(TraceSettings(otlp="http://127.0.0.1:9"))
    spans(ended())
    spans.close()


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtra, match=re.escape("pip install 'penstock[otel]'")):
        Spans(TraceSettings(otlp="http://localhost:4318"))
