"""Two hundred clients at once, of whom half leave at a random moment."""

from __future__ import annotations

import asyncio
import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import Server, client

CLIENTS = 200
MOST_PROMPT, MOST_OUTPUT = 1000, 150  # the built-in model's context bounds what of the trace fits


def lengths(shared_data: Path) -> list[tuple[int, int]]:
    """(prompt, output) tokens from the Azure conversation trace."""
    with (shared_data / "traces/azure_llm_2023/AzureLLMInferenceTrace_conv.csv").open() as lines:
        rows = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(lines)]
    return [(min(p, MOST_PROMPT), min(o, MOST_OUTPUT)) for p, o in random.Random(0).sample(rows, CLIENTS)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.feature("disconnect", "continuous batching")
async def test_half_of_the_clients_leave_and_nothing_is_lost(serve: Callable[..., Server], shared_data: Path) -> None:
    server = serve()
    engine = server.engine.pid
    rng = random.Random(1)

    async def one(number: int, num_prompt: int, num_output: int) -> None:
        body = server.body(
            prompt=[rng.randrange(300, 1000) for _ in range(num_prompt)],
            max_tokens=num_output,
            ignore_eos=True,
            return_token_ids=True,
            stream_options={"include_usage": True},
        )
        leave_after = rng.randrange(0, num_output + 1) if number % 2 else None
        lines = await server.read(http, body, leave_after)
        if leave_after is not None:
            return
        assert lines[-1] == "[DONE]", lines[-1]
        chunks = [json.loads(line) for line in lines[:-1]]
        tokens = [t for chunk in chunks for choice in chunk["choices"] for t in choice.get("token_ids") or ()]
        assert len(tokens) == num_output
        assert chunks[-1]["usage"]["completion_tokens"] == num_output
        assert chunks[-1]["usage"]["prompt_tokens"] == num_prompt

    async with client() as http:
        await asyncio.gather(*(one(i, *length) for i, length in enumerate(lengths(shared_data))))
    server.until_idle()
    assert CLIENTS // 2 <= server.accepted() <= CLIENTS
    assert server.metric("vllm:request_success_total", finished_reason="error") == 0
    assert server.engine.pid == engine, "the engine died meanwhile (it audits its blocks whenever it runs out of work)"


@pytest.mark.feature("bounded queue")
async def test_beyond_the_queue_429_with_retry_after(serve: Callable[..., Server]) -> None:
    server = serve(config="[engine]\nmax_num_seqs = 2\nmax_queue = 2\n")
    body = server.body(max_tokens=200, ignore_eos=True, stream=False)
    async with client() as http:
        answers = await asyncio.gather(*(http.post(f"{server.url}/v1/completions", json=body) for _ in range(12)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert sorted({answer.status_code for answer in answers}) == [200, 429]
    assert len(refused) == 8
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert all(answer.json()["error"]["code"] == "overloaded" for answer in refused)
    server.until_idle()


@pytest.mark.feature("disconnect")
async def test_a_client_that_leaves_frees_its_blocks_at_once(serve: Callable[..., Server]) -> None:
    server = serve()
    asked = 1900
    async with client() as http:
        await server.read(http, server.body(max_tokens=asked, ignore_eos=True), leave_after=3)
    server.until_idle()
    assert server.metric("vllm:generation_tokens_total") < asked / 2
    assert server.metric("vllm:request_success_total", finished_reason="abort") == 1
