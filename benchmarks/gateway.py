"""What the gateway adds, beside a bare pass-through and LiteLLM's proxy, all measured in one run.

    python benchmarks/gateway.py                              penstock and the pass-through
    python benchmarks/gateway.py --litellm venv/bin/litellm   LiteLLM's proxy too, from an environment of its own
    python benchmarks/gateway.py --soak 200000                how memory grows over so many requests

One gateway process, an upstream that answers at once, 100 tokens an answer. Penstock runs its full pipeline: a key with limits and
a budget, reserve and settle, an exact-cache miss, the ledger in SQLite, metrics. "Added" is a request's latency through the gateway
less the upstream's own. The last line is JSON. Results: benchmarks/LOG.md.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent))
from instant import MODEL, Load, ask

HERE = Path(__file__).resolve().parent
READY_WITHIN_S = 30.0

PENSTOCK = """
[server]
port = {port}
data_dir = "{folder}"
[cache]
exact = "on"
[prices]
file = "{folder}/prices.toml"
[[upstreams]]
name = "instant"
url = "http://127.0.0.1:{upstream}/v1"
models = ["{model}"]
"""
PRICES = """
[[prices]]
models = ["{model}"]
prompt = 1
completion = 2
"""
LITELLM = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs: where, with which key, how fast it was ready."""

    name: str
    process: psutil.Process
    port: int
    ready_s: float
    key: str = ""

    @property
    def memory_mb(self) -> float:
        """Resident memory of the process and its children."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_info().rss for process in family) / 1e6


@dataclass(frozen=True)
class Figures:
    """What one gateway did."""

    added_p50_ms: float
    added_p99_ms: float
    requests_per_s: float
    streams_per_s: float
    memory_mb: float
    ready_s: float


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = _port()
        stack.enter_context(_running([sys.executable, HERE / "instant.py", "upstream", upstream], folder / "upstream.log"))
        _wait(lambda: _answers(upstream, "/v1/models"))
        direct = uvloop.run(ask(upstream, clients=1, requests=options.requests // 4, stream=False))
        print(f"upstream alone: p50 {direct.percentile_ms(0.5):.3f} ms, p99 {direct.percentile_ms(0.99):.3f} ms\n")
        print(f"{'':12} {'added p50':>10} {'added p99':>10} {'requests/s':>11} {'streams/s':>10} {'memory':>9} {'ready':>7}")
        starters = [_passthrough, _penstock] + ([_litellm] if options.litellm else [])
        results: dict[str, Figures] = {}
        for start in starters:
            with start(folder, upstream, options) as gateway:
                results[gateway.name] = uvloop.run(_measure(gateway, direct, options))
                _print(gateway.name, results[gateway.name])
                if gateway.name == "penstock" and options.soak:
                    growth = uvloop.run(_soak(gateway, options.soak))
    ours = asdict(results.pop("penstock"))
    peers = {name: asdict(figures) for name, figures in results.items()}
    print(json.dumps({**ours, **({"soak_memory_mb": growth} if options.soak else {}), "peers": peers}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", metavar="PROGRAM", help="LiteLLM's command, in an environment that has litellm[proxy]")
    parser.add_argument("--requests", type=int, default=8000, help="requests at 32 clients; a quarter of it at one client")
    parser.add_argument("--streams", type=int, default=2000, help="streams at 32 clients")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="N more requests, to watch the memory")
    return parser.parse_args()


async def _measure(gateway: Gateway, direct: Load, options: argparse.Namespace) -> Figures:
    share = 20 if gateway.name == "litellm" else 1  # it is slow: a smaller sample is as long
    await _ask(gateway, clients=4, requests=400 // share, stream=False)  # warm up
    alone = await _ask(gateway, clients=1, requests=options.requests // 4 // share, stream=False)
    crowd = await _ask(gateway, clients=32, requests=options.requests // share, stream=False)
    streams = await _ask(gateway, clients=32, requests=options.streams // share, stream=True)
    return Figures(
        added_p50_ms=alone.percentile_ms(0.5) - direct.percentile_ms(0.5),
        added_p99_ms=alone.percentile_ms(0.99) - direct.percentile_ms(0.99),
        requests_per_s=crowd.rate,
        streams_per_s=streams.rate,
        memory_mb=gateway.memory_mb,
        ready_s=gateway.ready_s,
    )


async def _ask(gateway: Gateway, *, clients: int, requests: int, stream: bool) -> Load:
    load = await ask(gateway.port, clients=clients, requests=requests, stream=stream, key=gateway.key)
    if load.failures:
        raise RuntimeError(f"{gateway.name}: {len(load.failures)} of {requests} failed, such as: {load.failures[0]}")
    return load


async def _soak(gateway: Gateway, requests: int) -> list[float]:
    """Resident memory in MB, before and after each tenth of the requests."""
    grown = [gateway.memory_mb]
    for _ in range(10):
        await _ask(gateway, clients=32, requests=requests // 10, stream=False)
        grown.append(round(gateway.memory_mb, 1))
    return grown


@contextmanager
def _penstock(folder: Path, upstream: int, options: argparse.Namespace) -> Iterator[Gateway]:
    port = _port()
    config = folder / "penstock.toml"
    config.write_text(PENSTOCK.format(port=port, folder=folder, upstream=upstream, model=MODEL))
    (folder / "prices.toml").write_text(PRICES.format(model=MODEL))
    command = [sys.executable, "-m", "penstock"]
    limits = ["--requests-per-minute", 10**9, "--tokens-per-minute", 10**12, "--concurrent", 10**6, "--budget-day", 10**6]
    key = _output([*command, "keys", "create", "bench", *limits, "--config", config])
    with _started("penstock", [*command, "serve", "--config", config], port, folder, key) as gateway:
        yield gateway


@contextmanager
def _passthrough(folder: Path, upstream: int, options: argparse.Namespace) -> Iterator[Gateway]:
    port = _port()
    with _started("passthrough", [sys.executable, HERE / "passthrough.py", port, upstream], port, folder) as gateway:
        yield gateway


@contextmanager
def _litellm(folder: Path, upstream: int, options: argparse.Namespace) -> Iterator[Gateway]:
    port = _port()
    key = f"sk-{secrets.token_hex(32)}"
    (folder / "litellm.yaml").write_text(LITELLM.format(model=MODEL, upstream=upstream, key=key))
    command = [options.litellm, "--config", folder / "litellm.yaml", "--host", "127.0.0.1", "--port", port]
    with _started("litellm", command, port, folder, key) as gateway:
        yield gateway


@contextmanager
def _started(name: str, command: Sequence[object], port: int, folder: Path, key: str = "") -> Iterator[Gateway]:
    started = time.perf_counter()
    log = folder / f"{name}.log"
    with _running(command, log) as process:
        try:
            _wait(lambda: _completes(port, key))
        except RuntimeError as error:
            raise RuntimeError(f"{name} is {error}: {log.read_text()[-2000:]}") from None
        yield Gateway(name, psutil.Process(process.pid), port, time.perf_counter() - started, key)


@contextmanager
def _running(command: Sequence[object], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        process = subprocess.Popen([str(part) for part in command], stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _output(command: Sequence[object]) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout.strip()


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + READY_WITHIN_S
    while not ready():
        if time.perf_counter() > deadline:
            raise RuntimeError(f"not ready within {READY_WITHIN_S:g} s")
        time.sleep(0.02)


def _answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200
    except httpx.TransportError:
        return False


def _completes(port: int, key: str) -> bool:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "ready?"}], "max_tokens": 1}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        return httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _print(name: str, figures: Figures) -> None:
    print(
        f"{name:12} {figures.added_p50_ms:7.3f} ms {figures.added_p99_ms:7.3f} ms {figures.requests_per_s:11.0f} "
        f"{figures.streams_per_s:10.0f} {figures.memory_mb:6.0f} MB {figures.ready_s:5.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
