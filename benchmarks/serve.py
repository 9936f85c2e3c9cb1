"""Serving speed over HTTP beside `transformers.generate` on the same model, in the same run.

    python benchmarks/serve.py                          the built-in model and a random 0.5B shape, 1, 8 and 32 clients
    python benchmarks/serve.py --models penstock-mini   one model only

Each client streams completions of random prompts, greedy, end of text ignored. The peer runs the same token ids in two
ways: `batch`, one static batch of as many prompts as there are clients (no server could do that: the prompts come
together and all answers have the same length), and `sequential`, one prompt after another, as a server without batching
would. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from load import run
from models import qwen_05b
from transformers import AutoModelForCausalLM

SHAPE = "qwen-0.5b-shape"


def main() -> None:
    args = arguments()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    results = {}
    for name in args.models:
        path = qwen_05b(args.folder, torch.float32) if name == SHAPE else builtin(name)
        results[name] = measure(name, path, args)
    print(json.dumps({"benchmark": "serve", "prompt_tokens": args.prompt_tokens, "output_tokens": args.output_tokens, "models": results}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["penstock-mini", SHAPE], help=f"built-in names or {SHAPE}")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3, help="measurements per number of clients; the median counts")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "penstock-benchmarks")
    return parser.parse_args()


def builtin(name: str) -> Path:
    from penstock.files.locate import locate

    return locate(name).path


def measure(name: str, path: Path, args: argparse.Namespace) -> dict[str, object]:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    rows = {}
    with server(path) as port:
        asyncio.run(run(port, bodies(path, 1, model.config.vocab_size, args)))  # the first touch of memory is nobody's merit
        generate(model, 1, args)
        for clients in args.clients:
            rows[str(clients)] = row = compare(port, path, model, clients, args)
            print(f"{name:>16}, {clients:2} clients: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return rows


def compare(port: int, path: Path, model: torch.nn.Module, clients: int, args: argparse.Namespace) -> dict[str, float]:
    """Ours and the peer's in turn, so that both see the same machine; medians."""
    ours, outside, batch, sequential = [], [], [], []
    for _ in range(args.repeat):
        before = counters(port)
        ours.append(asyncio.run(run(port, bodies(path, clients, model.config.vocab_size, args))))
        after = counters(port)
        outside.append(1 - (after["forward"] - before["forward"]) / (after["busy"] - before["busy"]))
        batch.append(generate(model, clients, args))
        sequential.append(generate(model, 1, args))
    middle = sorted(ours, key=lambda load: load.tokens_per_s)[len(ours) // 2]
    peer_batch, peer_sequential = median(batch), median(sequential)
    return asdict(middle) | {
        "outside_forward": median(outside),
        "transformers_batch": peer_batch,
        "transformers_sequential": peer_sequential,
        "ratio_batch": middle.tokens_per_s / peer_batch,
        "ratio_sequential": middle.tokens_per_s / peer_sequential,
    }


def bodies(path: Path, clients: int, vocab_size: int, args: argparse.Namespace) -> list[list[dict[str, object]]]:
    rng = random.Random(time.time())
    common = {"max_tokens": args.output_tokens, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    return [[common | {"prompt": [rng.randrange(10, vocab_size) for _ in range(args.prompt_tokens)]}] for _ in range(clients)]


def generate(model: torch.nn.Module, batch: int, args: argparse.Namespace) -> float:
    """Generated tokens per second of `transformers` for one batch."""
    ids = torch.randint(10, model.config.vocab_size, (batch, args.prompt_tokens))
    started = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=args.output_tokens,
            min_new_tokens=args.output_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return batch * args.output_tokens / (time.perf_counter() - started)


@contextlib.contextmanager
def server(path: Path, *flags: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "penstock", "serve", str(path), "--port", str(port), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_ready(process, port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def wait_ready(process: subprocess.Popen[bytes], port: int, limit_s: float = 300) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with exit code {process.returncode}")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready")
            return
        time.sleep(0.2)
    raise SystemExit(f"the server was not ready within {limit_s} s")


def counters(port: int) -> dict[str, float]:
    """Seconds that the engine was busy, and of these in the model's forward."""
    time.sleep(0.2)
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    samples = {key: re.findall(rf"^penstock:engine_{key}_seconds_total{{.*}} (\S+)$", text, re.MULTILINE) for key in ("busy", "forward")}
    return {key: sum(map(float, values)) for key, values in samples.items()}


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
