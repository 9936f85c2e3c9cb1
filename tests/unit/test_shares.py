"""Metrics say who used what, at what cost, and nothing is lost between the requests, their attempts and the sums."""

from __future__ import annotations

import re
from contextlib import aclosing
from decimal import Decimal
from itertools import count
from random import Random

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from penstock.core.errors import EngineDied, InvalidRequest
from penstock.core.types import (
    Attempt,
    Decision,
    Delta,
    EngineUse,
    Finish,
    Principal,
    Request,
    Route,
    Timings,
    Usage,
)
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace import Accepted, Ended, Streamed, Trace, TraceEvent
from penstock.trace.metrics import Metrics
from penstock.trace.shares import MOST_SERIES
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script

FIRST, SECOND = Route(upstream="vllm", model="qwen"), Route(upstream="here", model="qwen")
REQUEST = Request(id="r", model="best", prompt="x", principal=Principal(key_id="k1", name='the "A" team'))
TEAM = {"model_name": "qwen", "upstream": "here", "key": "k1", "key_name": 'the "A" team'}
TIMINGS = Timings(queue_s=0.25, ttft_s=1.5, tpot_s=0.125, e2e_s=3.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, ["best"])


def attempt(route: Route, **fields: object) -> Attempt:
    given = {"id": "r#0", "request_id": "r", "number": 0, "key_id": "k1", "tenant": "k1", "model": "best", "started_at": 0.0}
    return Attempt(route=route, **{**given, "purpose": "answer", "reason": "stop", **fields})


def total(shown: Metrics | str, name: str, **labels: str) -> float:
    """The sum over all series of a metric that carry these labels."""
    text = shown if isinstance(shown, str) else shown.render().decode()
    found = re.findall(rf"^{re.escape(name)}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
    assert found, name
    return sum(float(value) for given, value in found if all(f'{label}="{text}"' in given for label, text in labels.items()))


def test_a_request_counts_for_its_key_and_the_route_that_answered(metrics: Metrics, registry: CollectorRegistry) -> None:
    usage = Usage(prompt_tokens=7, completion_tokens=40, cached_tokens=3, reasoning_tokens=10)
    use = EngineUse(prefill_s=0.5, decode_s=1.0, kv_s=1.25)
    failed = attempt(FIRST, reason="error", failure="upstream_error", usage=Usage(prompt_tokens=5), cost_usd=None)
    worked = attempt(SECOND, purpose="retry", usage=usage, use=use, cost_usd=Decimal("0.25"))
    finish = Finish(reason="stop", usage=usage, timings=TIMINGS)
    metrics(Ended(REQUEST, Decision(route=SECOND), finish, attempts=(failed, worked), cache="miss"))
    expected = {
        "requests_total": 1, "attempts_total": 1, "prompt_tokens_total": 7, "cached_tokens_total": 3, "completion_tokens_total": 40,
        "reasoning_tokens_total": 10, "cost_usd_total": 0.25, "cost_unknown_total": 0, "saved_usd_total": 0,
        "engine_share_seconds_total": 1.5, "engine_kv_share_seconds_total": 1.25, "cache_lookups_total": 1,
        "time_to_first_token_seconds_sum": 1.5, "time_per_output_token_seconds_sum": 0.125, "queue_seconds_sum": 0.25,
    }  # fmt: skip
    split = {
        "requests_total": {"finished_reason": "stop"},
        "attempts_total": {"purpose": "retry"},
        "cache_lookups_total": {"state": "miss"},
    }
    found = {name: registry.get_sample_value(f"penstock:{name}", TEAM | split.get(name, {})) for name in expected}
    assert found == expected
    other = TEAM | {"upstream": "vllm"}
    assert registry.get_sample_value("penstock:prompt_tokens_total", other) == 5
    assert registry.get_sample_value("penstock:cost_unknown_total", other) == 1


def test_an_answer_from_the_cache_saves_and_costs_nothing(metrics: Metrics, registry: CollectorRegistry) -> None:
    cached = attempt(SECOND, purpose="cache", usage=Usage(prompt_tokens=7), cost_usd=Decimal(0), saved_usd=Decimal("0.5"))
    metrics(Ended(REQUEST, Decision(route=SECOND), Finish(reason="stop"), attempts=(cached,), cache="hit"))
    assert registry.get_sample_value("penstock:saved_usd_total", TEAM) == 0.5
    assert registry.get_sample_value("penstock:cost_usd_total", TEAM) == 0
    assert registry.get_sample_value("penstock:prompt_tokens_total", TEAM) == 0


def test_the_number_of_series_is_bounded_and_nothing_is_lost(metrics: Metrics) -> None:
    for number in range(MOST_SERIES + 50):
        asked = replace(REQUEST, principal=Principal(key_id=f"k{number}"))
        metrics(Ended(asked, Decision(route=SECOND), Finish(reason="stop")))
    text = metrics.render().decode()
    assert len(set(re.findall(r'key="[^"]*"', text))) <= MOST_SERIES + 1
    assert total(text, "penstock:requests_total") == MOST_SERIES + 50
    assert total(text, "penstock:requests_total", key="other") == 50


class Watch:
    """What the trace says, for comparison."""

    def __init__(self) -> None:
        self.accepted = self.first_tokens = 0
        self.ended: list[Ended] = []

    def __call__(self, event: TraceEvent) -> None:
        match event:
            case Accepted():
                self.accepted += 1
            case Streamed():
                self.first_tokens += event.ttft_s is not None
            case Ended():
                self.ended.append(event)


class OneCentPerToken:
    """Prices that know one of the two models."""

    def cost(self, route: Route, usage: Usage, use: EngineUse | None) -> Decimal | None:
        return Decimal("0.01") * usage.total_tokens if route.model == "known" else None

    def worst(self, route: Route, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        return None


def scripts(rng: Random) -> list[Script]:
    """Answers, failures before and after the first token, and one that no retry helps."""
    broken = (EngineDied("gone"), InvalidRequest("no"))
    return [Script(pieces=("a", "b", "c"), error=rng.choice((None, None, *broken)), error_after=rng.choice((0, 0, 2))) for _ in range(300)]


async def test_what_goes_in_comes_out(metrics: Metrics) -> None:
    """Answers, refusals, failures before and after the first token, retries, unknown models, clients that leave: the sums agree."""
    rng, serial, watch = Random(1), count(), Watch()
    metrics.serve(["known", "unknown price"])
    upstreams = {"a": FakeUpstream(*scripts(rng), model="known"), "b": FakeUpstream(*scripts(rng), model="unknown price")}
    trace = Trace(metrics, watch)
    router = FixedRouter(routes_by_model(upstreams))
    pipeline = Pipeline(dispatch=Dispatch(upstreams, trace=trace), router=router, trace=trace, pricing=OneCentPerToken())
    seen_first = 0
    for _ in range(200):
        principal = Principal(key_id=rng.choice(("k1", "k2", "")))
        model = rng.choice(("known", "known", "unknown price", "no such model"))
        request = Request(id=f"r{next(serial)}", model=model, prompt="Hi", principal=principal, deadline_s=5.0)
        leaves_after = rng.choice((None, None, 0, 1, 2))
        deltas = 0
        async with aclosing(pipeline.run(request)) as events:
            async for event in events:
                deltas += isinstance(event, Delta)
                if leaves_after is not None and deltas > leaves_after:
                    break
        seen_first += deltas > 0
    attempts = [attempt for event in watch.ended for attempt in event.attempts]
    assert len({event.finish.reason for event in watch.ended}) == 3  # stop, error, abort
    ended = total(metrics, "penstock:requests_total")
    assert (
        ended == watch.accepted == total(metrics, "penstock:requests_accepted_total") == total(metrics, "vllm:request_success_total") == 200
    )
    for name in ("penstock:time_to_first_token_seconds_count", "vllm:time_to_first_token_seconds_count"):
        assert total(metrics, name) == watch.first_tokens == seen_first
    assert total(metrics, "penstock:attempts_total") == len(attempts)
    for kind in ("prompt", "completion", "cached"):
        assert total(metrics, f"penstock:{kind}_tokens_total") == sum(getattr(attempt.usage, f"{kind}_tokens") for attempt in attempts)
    known = [attempt.cost_usd for attempt in attempts if attempt.cost_usd is not None]
    assert total(metrics, "penstock:cost_usd_total") == pytest.approx(float(sum(known)))
    assert total(metrics, "penstock:cost_unknown_total") == len(attempts) - len(known) > 0
    for key in ("k1", "k2", ""):
        assert total(metrics, "penstock:requests_total", key=key) == sum(event.request.principal.key_id == key for event in watch.ended)
