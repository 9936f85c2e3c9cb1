"""Writes dashboards/grafana.json: `python scripts/grafana.py`. A test checks that the file is what this writes.

Every panel is one line of `ROWS`: title, unit, queries by legend. `$rate` is Grafana's interval, `$by` the variables at the top.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "dashboards" / "grafana.json"
WIDTH, HEIGHT = 8, 8  # of a panel; Grafana's grid is 24 wide
SOURCE = {"type": "prometheus", "uid": "${source}"}

ASKED = 'model_name=~"$model",upstream=~"$upstream",key_name=~"$key"'
ENGINE = 'model_name=~"$model"'
ROUTE, ROUTE_LEGEND = "upstream, model_name", "{{upstream}} / {{model_name}}"
MODEL, MODEL_LEGEND = "model_name", "{{model_name}}"
KEY, KEY_LEGEND = "key_name", "{{key_name}}"

Queries = dict[str, str]  # legend to query
Panel = tuple[str, str, Queries]  # title, unit, queries


def rate(metric: str, by: str = "", matchers: str = ASKED) -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{matchers}}}[$__rate_interval]))"


def judged(room: str, by: str = "", also: str = "") -> str:
    """Decisions that counted."""
    return rate("penstock:judgements_total", by, f'room="{room}",shadow="false"{also and f",{also}"}')


def hourly(metric: str, by: str = "") -> str:
    return f"3600 * {rate(metric, by)}"


def quantiles(metric: str, matchers: str = ASKED) -> Queries:
    return {f"p{share}": f"histogram_quantile(0.{share}, {rate(f'{metric}_bucket', 'le', matchers)})" for share in (50, 95, 99)}


def ratio(above: str, below: str) -> str:
    return f"{above} / ({below} > 0)"


ROWS: dict[str, list[Panel]] = {
    "Requests": [
        ("Requests by how they ended", "reqps", {"{{finished_reason}}": rate("penstock:requests_total", "finished_reason")}),
        ("Requests by route", "reqps", {ROUTE_LEGEND: rate("penstock:requests_total", ROUTE)}),
        ("Requests by key", "reqps", {KEY_LEGEND: rate("penstock:requests_total", KEY)}),
        ("Failed requests", "percentunit", {
            "share": ratio(rate("penstock:requests_total", matchers=f'{ASKED},finished_reason="error"'), rate("penstock:requests_total")),
        }),
        ("Under way", "short", {"requests": "sum(penstock:requests_accepted_total) - sum(vllm:request_success_total)"}),
        ("Cache of answers", "percentunit", {
            "hits": ratio(
                rate("penstock:cache_lookups_total", matchers=f'{ASKED},state="hit"'),
                rate("penstock:cache_lookups_total", matchers=f'{ASKED},state=~"hit|miss"'),
            ),
        }),
    ],
    "Latency": [
        ("Time to first token", "s", quantiles("penstock:time_to_first_token_seconds")),
        ("Time per output token", "s", quantiles("penstock:time_per_output_token_seconds")),
        ("Whole answers", "s", quantiles("vllm:e2e_request_latency_seconds", ENGINE)),
        ("Time in the engine's queue", "s", quantiles("penstock:queue_seconds")),
        ("Time to first token by route, p95", "s", {
            ROUTE_LEGEND:
                f"histogram_quantile(0.95, {rate('penstock:time_to_first_token_seconds_bucket', 'le, upstream, model_name')})",
        }),
        ("Time to first token by key, mean", "s", {
            KEY_LEGEND: ratio(
                rate("penstock:time_to_first_token_seconds_sum", KEY),
                rate("penstock:time_to_first_token_seconds_count", KEY),
            ),
        }),
    ],
    "Tokens and money": [
        ("Tokens per second", "short", {
            "prompt": rate("penstock:prompt_tokens_total"), "of which cached": rate("penstock:cached_tokens_total"),
            "completion": rate("penstock:completion_tokens_total"), "of which reasoning": rate("penstock:reasoning_tokens_total"),
        }),
        ("Completion tokens per second by key", "short", {KEY_LEGEND: rate("penstock:completion_tokens_total", KEY)}),
        ("Completion tokens per second by route", "short", {
            ROUTE_LEGEND: rate("penstock:completion_tokens_total", ROUTE),
        }),
        ("Cost per hour by route", "currencyUSD", {ROUTE_LEGEND: hourly("penstock:cost_usd_total", ROUTE)}),
        ("Cost per hour by key", "currencyUSD", {KEY_LEGEND: hourly("penstock:cost_usd_total", KEY)}),
        ("Saved per hour by the cache", "currencyUSD", {"saved": hourly("penstock:saved_usd_total")}),
        ("Calls per second at an unknown price", "short", {ROUTE_LEGEND: rate("penstock:cost_unknown_total", ROUTE)}),
        ("Calls of upstreams by purpose", "reqps", {"{{purpose}}": rate("penstock:attempts_total", "purpose")}),
        ("Failed over to the next route", "reqps", {MODEL_LEGEND: rate("penstock:requests_rerouted_total", MODEL, ENGINE)}),
    ],
    "Guards, cache and router": [
        ("Decisions of guards", "reqps", {"{{rule}}: {{action}}": judged("guard", "rule, action")}),
        ("Answers from the cache by tier", "reqps", {"{{rule}}": judged("cache", "rule", 'action="hit"')}),
        ("Decisions of the router", "reqps", {"{{rule}}: {{action}}": judged("router", "rule, action")}),
        ("Kept by the cascade's first model", "percentunit", {
            "kept": ratio(judged("router", also='action="kept"'), judged("router", also='action=~"kept|escalated"')),
        }),
        ("Refused by guards", "percentunit", {
            "refused": ratio(judged("guard", also='action="refuse"'), "sum(rate(penstock:requests_accepted_total[$__rate_interval]))"),
        }),
        ("Decisions in shadow", "reqps", {
            "{{room}} {{rule}}: {{action}}": rate("penstock:judgements_total", "room, rule, action", 'shadow="true"'),
        }),
    ],
    "Our own engines": [
        ("Utilization", "percentunit", {MODEL_LEGEND: f"penstock:engine_utilization{{{ENGINE}}}"}),
        ("KV cache held", "percentunit", {MODEL_LEGEND: f"vllm:kv_cache_usage_perc{{{ENGINE}}}"}),
        ("Sequences", "short", {
            "{{model_name}} running": f"vllm:num_requests_running{{{ENGINE}}}",
            "{{model_name}} waiting": f"vllm:num_requests_waiting{{{ENGINE}}}",
        }),
        ("Engine time by key", "percentunit", {KEY_LEGEND: rate("penstock:engine_share_seconds_total", KEY)}),
        ("Engine time by key, as KV held", "percentunit", {KEY_LEGEND: rate("penstock:engine_kv_share_seconds_total", KEY)}),
        ("Prefix cache", "percentunit", {
            MODEL_LEGEND: ratio(
                rate("vllm:prefix_cache_hits_total", MODEL, ENGINE), rate("vllm:prefix_cache_queries_total", MODEL, ENGINE)
            ),
        }),
        ("Tokens per second", "short", {
            "{{model_name}} prompt": rate("vllm:prompt_tokens_total", MODEL, ENGINE),
            "{{model_name}} generated": rate("vllm:generation_tokens_total", MODEL, ENGINE),
        }),
        ("Busy time outside of the model", "percentunit", {
            MODEL_LEGEND: "1 - " + ratio(
                rate("penstock:engine_forward_seconds_total", MODEL, ENGINE),
                rate("penstock:engine_busy_seconds_total", MODEL, ENGINE),
            ),
        }),
        ("Preemptions", "short", {MODEL_LEGEND: rate("vllm:num_preemptions_total", MODEL, ENGINE)}),
    ],
}  # fmt: skip


def dashboard() -> dict[str, object]:
    """The whole file."""
    panels: list[dict[str, object]] = []
    y = 0
    for row, given in ROWS.items():
        panels.append({"type": "row", "title": row, "collapsed": False, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "panels": []})
        for number, (title, unit, queries) in enumerate(given):
            x, below = WIDTH * (number % 3), HEIGHT * (number // 3)
            panels.append(panel(title, unit, queries) | {"gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y + 1 + below}})
        y += 1 + HEIGHT * -(-len(given) // 3)
    numbered = [{"id": number, **each} for number, each in enumerate(panels, start=1)]
    return {
        "title": "Penstock",
        "uid": "penstock",
        "tags": ["llm", "penstock"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source(), *map(variable, ("model", "upstream", "key"), ("model_name", "upstream", KEY))]},
        "panels": numbered,
    }


def panel(title: str, unit: str, queries: Queries) -> dict[str, object]:
    targets = [
        {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for number, (legend, query) in enumerate(queries.items())
    ]
    drawn = {"unit": unit, "min": 0, "custom": {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"}}
    return {
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": drawn, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def source() -> dict[str, object]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0, "refresh": 1}


def variable(name: str, label: str) -> dict[str, object]:
    query = f"label_values(penstock:requests_total, {label})"
    return {
        "name": name, "type": "query", "datasource": SOURCE, "definition": query, "query": {"query": query, "refId": name},
        "includeAll": True, "allValue": ".*", "multi": True,
        "current": {"text": "All", "value": "$__all"}, "refresh": 2, "sort": 1, "hide": 0,
    }  # fmt: skip


def text() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")
    print(f"{FILE}: {sum(map(len, ROWS.values()))} panels")
