"""Every query of the Grafana dashboard asks for samples that /metrics has, by labels that they carry; the page explains them."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.types import Attempt, Decision, EngineUse, Finish, Judgement, Principal, Request, Route, Timings, Usage
from penstock.trace import Accepted, Ended
from penstock.trace.metrics import Metrics

FILE = Path("dashboards") / "grafana.json"
SELECTOR = re.compile(r"((?:penstock|vllm):\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"by \(([^)]*)\) \(rate\(((?:penstock|vllm):\w+)")


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    """Of a server that has answered once: each sample's labels."""
    metrics, route = Metrics(CollectorRegistry(), ["mini"]), Route(upstream="mini", model="mini")
    request = Request(id="r", model="mini", prompt="Hi", principal=Principal(key_id="k", name="team"))
    attempt = Attempt(
        id="r#0", request_id="r", number=0, purpose="answer", key_id="k", tenant="k", model="mini", route=route, started_at=0.0,
        reason="stop", usage=Usage(prompt_tokens=1), use=EngineUse(), cost_usd=Decimal(1),
    )  # fmt: skip
    metrics(Accepted(request))
    finish, said = Finish(reason="stop", timings=Timings(ttft_s=1.0)), Judgement(room="cache", rule="exact", action="miss")
    metrics(Ended(request, Decision(route=route), finish, attempts=(attempt,), cache="miss", judgements=(said,)))
    families = text_string_to_metric_families(metrics.render().decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


@pytest.fixture(scope="module")
def queries(root: Path) -> list[str]:
    return list(_queries(json.loads((root / FILE).read_text())))


def _queries(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key in ("expr", "definition") and isinstance(value, str))
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _queries(value)


def test_every_query_finds_its_samples(queries: list[str], samples: dict[str, set[str]]) -> None:
    asked = {name: query for query in queries for name, _ in SELECTOR.findall(query)}
    assert len(asked) > 20
    assert {name: query for name, query in asked.items() if name not in samples} == {}


def test_every_query_asks_by_labels_that_there_are(queries: list[str], samples: dict[str, set[str]]) -> None:
    for query in queries:
        for name, matchers in SELECTOR.findall(query):
            assert set(re.findall(r'(\w+)(?:=~|=)"', matchers)) <= samples[name], query
        for labels, name in GROUPED.findall(query):
            assert set(labels.split(", ")) <= samples[name], query


def test_every_metric_of_our_own_is_explained(root: Path, samples: dict[str, set[str]]) -> None:
    page = (root / "docs" / "observability.md").read_text()
    explained = set(re.findall(r"^\| `(penstock:\w+)` \|", page, re.MULTILINE))
    names = {re.sub("_(bucket|sum|count)$", "", name) for name in samples if name.startswith("penstock:")}
    assert explained == names


def test_each_panel_has_a_place_of_its_own(root: Path) -> None:
    places = [panel["gridPos"] for panel in json.loads((root / FILE).read_text())["panels"]]
    cells = [(x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_file_is_what_its_script_writes(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("grafana", root / "scripts" / "grafana.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (root / FILE).read_text() == script.text(), "run: python scripts/grafana.py"
