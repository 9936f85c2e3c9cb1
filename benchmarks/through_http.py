"""What HTTP, gateway and pipeline leave of the engine's speed: the same requests to a server, and to the engine in this process.

    python benchmarks/through_http.py                            a random 0.5B shape in int4, 1, 8 and 32 clients
    python benchmarks/through_http.py --models penstock-mini --weights int8

Clients send their prompts together, greedy, end of text ignored; tokens a second from the first prompt sent to the last
token received, medians of runs taken in turn. The last line is JSON; `share` is HTTP's over the engine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from load import run
from models import qwen_05b
from serve import SHAPE, bodies, builtin, server

from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.engine import Engine
from penstock.engine.loading import load_engine
from penstock.engine.messages import Job


def main() -> None:
    args = arguments()
    results = {name: measure(name, args) for name in args.models}
    print(json.dumps({"benchmark": "through_http", "weights": args.weights, "models": results}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[SHAPE], help=f"built-in names or {SHAPE}")
    parser.add_argument("--weights", default="int4")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "penstock-benchmarks")
    return parser.parse_args()


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    path = qwen_05b(args.folder, torch.float32) if name == SHAPE else builtin(name)
    engine = load_engine(str(path), EngineSpec(weights=args.weights, prefix_caching=False), lambda *_: None)
    rows = {}
    with server(path, "--weights", args.weights) as port:
        for clients in args.clients:
            alone, served = [], []
            for repetition in range(args.repeat + 1):
                requests = bodies(path, clients, engine.info.vocab_size, args)
                figures = through_engine(engine, requests, args), asyncio.run(run(port, requests)).tokens_per_s
                if repetition:  # the first touch of memory is nobody's merit
                    alone.append(figures[0])
                    served.append(figures[1])
            rows[str(clients)] = row = {"engine": median(alone), "http": median(served), "share": median(served) / median(alone)}
            print(f"{name:>16}, {clients:2} clients: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return rows


def through_engine(engine: Engine, requests: list[list[dict[str, object]]], args: argparse.Namespace) -> float:
    sampling = Sampling(temperature=0.0, max_tokens=args.output_tokens, ignore_eos=True)
    started = time.perf_counter()
    for number, (body,) in enumerate(requests):
        prompt = body["prompt"]
        if isinstance(prompt, list):
            engine.add(Job(id=str(number), prompt=tuple(prompt), sampling=sampling))
    while engine.has_work:
        engine.step()
    return len(requests) * args.output_tokens / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
