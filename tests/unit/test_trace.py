"""Metrics fill vLLM's dashboards and stay monotonic; logs tell everything but what was said."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from penstock.core.errors import EngineDied
from penstock.core.types import Decision, Finish, Message, Request, Route, Sampling, Timings, Usage
from penstock.engine.messages import EngineStats
from penstock.trace import Accepted, Ended, Rerouted, Streamed, Trace
from penstock.trace.logs import JSONFormatter, RequestLog
from penstock.trace.metrics import NOT_EXPOSED, Metrics

MODEL = {"model_name": "mini", "engine": "0"}
REQUEST = Request(id="r1", model="mini", prompt="a secret", sampling=Sampling(max_tokens=50))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, ["mini"])


def ended(finish: Finish, request: Request = REQUEST, longest: int = 0) -> Ended:
    route = Route(upstream="local", model="mini")
    return Ended(request, Decision(route=route, candidates=(route,)), finish, longest)


def ends(registry: CollectorRegistry) -> dict[str, float]:
    reasons = ("stop", "length", "tool_calls", "abort", "error", "content_filter")
    return {reason: registry.get_sample_value("vllm:request_success_total", MODEL | {"finished_reason": reason}) or 0 for reason in reasons}


def test_every_end_is_counted_by_its_reason(metrics: Metrics, registry: CollectorRegistry) -> None:
    for reason in ("stop", "stop", "length", "abort", "error"):
        metrics(Accepted(REQUEST))
        metrics(ended(Finish(reason=reason)))
    assert ends(registry) == {"stop": 2, "length": 1, "tool_calls": 0, "abort": 1, "error": 1, "content_filter": 0}
    assert registry.get_sample_value("penstock:requests_accepted_total", MODEL) == 5


def test_a_client_cannot_make_series(metrics: Metrics, registry: CollectorRegistry) -> None:
    before = metrics.render().count(b"\n")
    for number in range(10):
        metrics(Accepted(Request(id="r", model=f"made-up-{number}", prompt="")))
    assert metrics.render().count(b"\n") == before
    assert registry.get_sample_value("penstock:requests_accepted_total", MODEL | {"model_name": "unknown"}) == 10


def test_an_answer_s_sizes_and_times_are_observed(metrics: Metrics, registry: CollectorRegistry) -> None:
    timings = Timings(queue_s=1.0, ttft_s=3.0, e2e_s=8.0)
    metrics(ended(Finish(reason="stop", usage=Usage(prompt_tokens=7, completion_tokens=40), timings=timings), longest=25))
    sums = {
        "request_prompt_tokens": 7,
        "request_generation_tokens": 40,
        "request_max_num_generation_tokens": 25,
        "request_params_max_tokens": 50,
        "request_params_n": 1,
        "e2e_request_latency_seconds": 8,
        "request_queue_time_seconds": 1,
        "request_prefill_time_seconds": 2,
        "request_decode_time_seconds": 5,
        "request_inference_time_seconds": 7,
    }
    assert {name: registry.get_sample_value(f"vllm:{name}_sum", MODEL) for name in sums} == sums


def test_a_failure_s_latency_is_not_an_answer_s(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics(ended(Finish(reason="error", timings=Timings(e2e_s=0.001))))
    assert registry.get_sample_value("vllm:e2e_request_latency_seconds_count", MODEL) == 0


def test_tokens_are_timed_as_they_go_out(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics(Streamed(REQUEST, ttft_s=0.5))
    metrics(Streamed(REQUEST, gaps_s=(0.25,)))
    metrics(Streamed(REQUEST, gaps_s=(0.25, 0.25)))  # two that left together
    assert registry.get_sample_value("vllm:time_to_first_token_seconds_sum", MODEL) == 0.5
    assert registry.get_sample_value("vllm:inter_token_latency_seconds_count", MODEL) == 3
    assert registry.get_sample_value("vllm:time_per_output_token_seconds_sum", MODEL) == 0.75  # the older name


def test_engine_counters_go_on_rising_when_the_engine_starts_anew(metrics: Metrics, registry: CollectorRegistry) -> None:
    for stats in (
        EngineStats(num_steps=5, generation_tokens=100, prefix_queries=10, prefix_hits=4, kv_usage=0.5, step_tokens=32, num_running=3),
        EngineStats(num_steps=9, generation_tokens=180, prefix_queries=20, prefix_hits=10, kv_usage=0.25, step_tokens=8, num_running=1),
        EngineStats(num_steps=1, generation_tokens=200, prefix_queries=30, prefix_hits=0),
    ):
        metrics.step("mini", stats)
    assert registry.get_sample_value("vllm:generation_tokens_total", MODEL) == 380
    assert registry.get_sample_value("vllm:prefix_cache_queries_total", MODEL) == 50
    assert registry.get_sample_value("vllm:prefix_cache_hits_total", MODEL) == 10
    assert registry.get_sample_value("vllm:kv_cache_usage_perc", MODEL) == 0


def test_engine_gauges_and_steps(metrics: Metrics, registry: CollectorRegistry) -> None:
    stats = EngineStats(num_steps=1, num_running=3, num_waiting=2, kv_usage=0.5, prefix_queries=8, prefix_hits=2, step_tokens=32)
    metrics.step("mini", stats)
    metrics.step("mini", stats)  # no step in between: news of the same one
    assert registry.get_sample_value("vllm:num_requests_running", MODEL) == 3
    assert registry.get_sample_value("vllm:num_requests_waiting", MODEL) == 2
    assert registry.get_sample_value("vllm:gpu_cache_usage_perc", MODEL) == 0.5
    assert registry.get_sample_value("vllm:gpu_prefix_cache_hit_rate", MODEL) == 0.25
    assert registry.get_sample_value("vllm:iteration_tokens_total_count", MODEL) == 1
    assert registry.get_sample_value("vllm:iteration_tokens_total_sum", MODEL) == 32


def test_utilization_is_that_of_the_last_seconds(registry: CollectorRegistry) -> None:
    now = [0.0]
    metrics = Metrics(registry, ["mini"], clock=lambda: now[0])

    def utilization() -> float:
        return registry.get_sample_value("penstock:engine_utilization", MODEL) or 0.0

    for second in range(1, 61):  # busy half of the time
        now[0] = second
        metrics.step("mini", EngineStats(num_steps=second, busy_s=second / 2))
    assert utilization() == pytest.approx(0.5)
    now[0] = 66.0  # then nothing at all
    assert utilization() < 0.5
    now[0] = 75.0
    assert utilization() == 0.0


def test_names_may_be_served_later(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.serve(["mini", "remote"])
    metrics(Accepted(replace(REQUEST, model="remote")))
    assert registry.get_sample_value("penstock:requests_accepted_total", MODEL | {"model_name": "remote"}) == 1


def dashboard_expressions(node: object) -> Iterator[str]:
    """Every string under `expr`, `query` or `definition` in a dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield value
            else:
                yield from dashboard_expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from dashboard_expressions(value)


def dashboard_names(folder: Path) -> dict[str, str]:
    """Every `vllm:` sample that a dashboard asks for, and one dashboard that does."""
    return {
        name: path.name
        for path in sorted(folder.glob("*.json"))
        for expression in dashboard_expressions(json.loads(path.read_text()))
        for name in re.findall(r"vllm:\w+", expression)
    }


def test_the_dashboards_find_every_sample(metrics: Metrics, shared_data: Path) -> None:
    wanted = dashboard_names(shared_data / "specs" / "grafana")
    assert len(wanted) > 30
    lines = metrics.render().decode().splitlines()
    exposed = {line.split("{")[0] for line in lines if 'model_name="mini"' in line and 'engine="0"' in line}
    missing = {name: dashboard for name, dashboard in wanted.items() if name not in exposed | set(NOT_EXPOSED)}
    assert missing == {}
    assert exposed.isdisjoint(NOT_EXPOSED)


def test_an_observer_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[object] = []

    def broken(event: object) -> None:
        raise ZeroDivisionError("no")

    Trace(broken, seen.append).emit(Accepted(REQUEST))
    assert seen == [Accepted(REQUEST)]
    assert "ZeroDivisionError" in caplog.text


def test_a_log_line_tells_how_it_went_and_not_what_was_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    failure, log_requests = EngineDied("the engine died").failure(), RequestLog()
    log_requests(Rerouted(REQUEST, Route(upstream="first", model="mini"), failure))
    log_requests(ended(Finish(reason="stop", usage=Usage(prompt_tokens=2, completion_tokens=3), timings=Timings(e2e_s=0.5))))
    log_requests(ended(Finish(reason="error", failure=failure)))
    lines = [JSONFormatter().format(record) for record in caplog.records]
    rerouted, answered, failed = map(json.loads, lines)
    assert (rerouted["level"], rerouted["route"], rerouted["code"]) == ("warning", "first/mini", "engine_died")
    assert (answered["request_id"], answered["model"], answered["status"]) == ("r1", "mini", 200)
    assert (answered["usage"]["completion_tokens"], answered["timings"]["e2e_s"]) == (3, 0.5)
    assert (failed["status"], failed["code"]) == (503, "engine_died")
    assert "secret" not in "".join(lines)


def test_what_was_said_is_logged_when_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    event = replace(ended(Finish(reason="stop", cost_usd=Decimal("0.00000012"))), text="an answer")
    RequestLog(log_text=True)(event)
    RequestLog(log_text=True)(replace(event, request=replace(REQUEST, prompt=None, messages=(Message(role="user", content="Hi"),))))
    first, second = (json.loads(JSONFormatter().format(record)) for record in caplog.records)
    assert (first["prompt"], first["answer"], first["cost_usd"]) == ("a secret", "an answer", "0.00000012")
    assert second["prompt"] == [{"role": "user", "content": "Hi"}]


def test_a_log_line_says_when_to_the_millisecond() -> None:
    formatter = JSONFormatter()

    def time_of(created: float) -> str:
        record = logging.LogRecord("penstock", logging.INFO, __file__, 1, "now", (), None)
        record.created = created
        return str(json.loads(formatter.format(record))["time"])

    times = [time_of(created) for created in (0.0, 0.0625, 1.5, 86_400 * 365.0)]
    assert times == [
        "1970-01-01T00:00:00.000+00:00", "1970-01-01T00:00:00.062+00:00", "1970-01-01T00:00:01.500+00:00", "1971-01-01T00:00:00.000+00:00"
    ]  # fmt: skip


def test_a_log_line_carries_the_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        record = logging.LogRecord("penstock", logging.ERROR, __file__, 1, "it %s", ("broke",), (ValueError, error, error.__traceback__))
    line = json.loads(JSONFormatter().format(record))
    assert line["message"] == "it broke"
    assert "ValueError: broken" in line["exception"]
