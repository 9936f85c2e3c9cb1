"""A real server under a crowd of which half leaves: metrics, spans and the log tell the same story."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Callable

import pytest
from collector import attributes, collecting
from serving import Server, client

CLIENTS = 12


async def crowd(server: Server) -> None:
    rng = random.Random(3)

    async def one(number: int) -> None:
        body = server.body(prompt=f"{number} once upon a time", max_tokens=rng.randint(2, 24), ignore_eos=True)
        await server.read(http, body, leave_after=rng.randint(1, 12) if number % 2 else None)

    async with client() as http:
        await asyncio.gather(*map(one, range(CLIENTS)))


async def test_metrics_spans_and_log_agree(serve: Callable[..., Server]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with collecting() as collector:
        server = serve(config=f'[trace]\notlp = "{collector.url}"\nservice_name = "here"\n')
        await crowd(server)
        server.until_idle()
        ended = server.metric("penstock:requests_total", upstream="penstock-mini", key="")
        shares = [server.metric(f"penstock:engine_{kind}seconds_total") for kind in ("share_", "kv_share_", "busy_")]
        first_tokens = [server.metric(f"{room}:time_to_first_token_seconds_count") for room in ("penstock", "vllm")]
        assert ended == server.accepted() == server.finished() == CLIENTS
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    logged = [line for line in lines if "finish_reason" in line]
    attempts = [attributes(span) for span in collector.spans if span.parent_span_id and "penstock.purpose" in attributes(span)]
    assert collector.service == "here"
    assert len(logged) == len(attempts) == CLIENTS
    assert sorted(line["finish_reason"] for line in logged) == sorted(span["gen_ai.response.finish_reasons"][0] for span in attempts)
    assert all(line["timings"]["queue_s"] is not None for line in logged if line["timings"]["ttft_s"] is not None)
    assert first_tokens == [sum(line["timings"]["ttft_s"] is not None for line in logged)] * 2
    assert sum(line["usage"]["completion_tokens"] for line in logged) == sum(span["gen_ai.usage.output_tokens"] for span in attempts)
    told = sum(span["penstock.prefill_s"] + span["penstock.decode_s"] for span in attempts)
    assert told == pytest.approx(shares[0])
    assert shares[0] == pytest.approx(shares[1])
    assert 0.5 * shares[2] < shares[0] <= 1.0001 * shares[2], "at most the use of those that left a stalled engine is missing"
