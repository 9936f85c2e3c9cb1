"""The engine's process is killed, hangs, or loses its parent; the gateway goes on."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from serving import Server, client


@pytest.mark.feature("engine restart")
async def test_killed_under_load_every_request_ends_clearly_and_service_returns(serve: Callable[..., Server]) -> None:
    server = serve()
    engine = server.engine
    async with client() as http:
        body = server.body(max_tokens=1500, ignore_eos=True)
        streams = [asyncio.create_task(server.read(http, body)) for _ in range(8)]
        while server.metric("vllm:num_requests_running") < 8:
            await asyncio.sleep(0.02)
        engine.kill()
        answers = await asyncio.wait_for(asyncio.gather(*streams), 30)
    for lines in answers:
        error = json.loads(lines[-1])["error"]
        assert error["code"] == "engine_died"
        assert "try again" in error["message"]
    server.until_ready()
    assert server.engine.pid != engine.pid
    async with client() as http:
        assert (await server.read(http, server.body()))[-1] == "[DONE]"
    server.until_idle()
    assert server.metric("vllm:request_success_total", finished_reason="error") == 8


def test_not_ready_while_the_engine_restarts(serve: Callable[..., Server]) -> None:
    server = serve()
    server.engine.kill()
    server.until(lambda: server.ready()[0] == 503, "/ready says 503", limit_s=5)
    assert "died" in server.ready()[1] or "signal 9" in server.ready()[1] or "restart" in server.ready()[1]
    server.until_ready()


def test_a_hanging_engine_is_not_ready_until_it_moves_again(serve: Callable[..., Server]) -> None:
    server = serve(config="[engine]\nstep_deadline_s = 1.0\n")
    server.engine.suspend()
    try:

        async def ask() -> list[str]:
            async with client() as http:
                waiting = asyncio.create_task(server.read(http, server.body()))
                await asyncio.to_thread(server.until, lambda: server.ready()[0] == 503, "/ready says 503", 10)
                assert "no step finished" in server.ready()[1]
                server.engine.resume()
                return await asyncio.wait_for(waiting, 30)

        assert asyncio.run(ask())[-1] == "[DONE]"
    finally:
        server.engine.resume()
    server.until_ready()


def test_an_engine_without_its_gateway_ends(serve: Callable[..., Server]) -> None:
    server = serve()
    engine = server.engine
    server.process.kill()
    server.process.wait()
    _gone, alive = psutil.wait_procs([engine], timeout=10)
    assert not alive, "the engine outlived its gateway"


@pytest.mark.feature("drain")
def test_sigterm_lets_answers_finish(serve: Callable[..., Server]) -> None:
    server = serve()

    async def ask() -> list[str]:
        async with client() as http:
            stream = asyncio.create_task(server.read(http, server.body(max_tokens=1900, ignore_eos=True)))
            while server.metric("vllm:num_requests_running") < 1 and not stream.done():
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            return await asyncio.wait_for(stream, 60)

    assert asyncio.run(ask())[-1] == "[DONE]"
    assert server.process.wait(timeout=20) == 0


def test_a_second_signal_stops_at_once(serve: Callable[..., Server]) -> None:
    server = serve()

    async def ask() -> None:
        async with client() as http:
            stream = asyncio.create_task(server.read(http, server.body(max_tokens=1900, ignore_eos=True)))
            while server.metric("vllm:num_requests_running") < 1:
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            await asyncio.to_thread(server.process.wait, 20)
            assert time.monotonic() - started < 10
            await asyncio.wait([stream], timeout=5)

    asyncio.run(ask())
