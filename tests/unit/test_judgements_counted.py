"""Decisions of guards, cache and router as Prometheus sees them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from penstock.core.types import Finish, Judgement, Request
from penstock.trace import Ended
from penstock.trace.judgements import MOST_SERIES
from penstock.trace.metrics import Metrics

REQUEST = Request(id="r", model="mini", prompt="x")


def told(metrics: Metrics) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if line.startswith("penstock:judgements_total{")]


def test_decisions_are_counted_by_rule_and_action() -> None:
    metrics = Metrics(CollectorRegistry(), ["mini"])
    redacted = Judgement(room="guard", rule="pii", action="redact")
    for _ in range(2):
        metrics(
            Ended(
                REQUEST,
                None,
                Finish(reason="stop"),
                judgements=(redacted, Judgement(room="cache", rule="exact", action="hit", shadow=True)),
            )
        )
    assert told(metrics) == [
        'penstock:judgements_total{action="redact",room="guard",rule="pii",shadow="false"} 2.0',
        'penstock:judgements_total{action="hit",room="cache",rule="exact",shadow="true"} 2.0',
    ]


def test_there_is_a_limit_to_the_series_and_the_sum_stays_right() -> None:
    metrics = Metrics(CollectorRegistry(), ["mini"])
    judgements = tuple(Judgement(room="router", rule="rules", action=f"model-{number}") for number in range(MOST_SERIES + 50))
    metrics(Ended(REQUEST, None, Finish(reason="stop"), judgements=judgements))
    lines = told(metrics)
    assert len(lines) == MOST_SERIES + 1
    assert sum(float(line.rsplit(" ", 1)[1]) for line in lines) == MOST_SERIES + 50
    assert 'rule="other"' in lines[-1]
