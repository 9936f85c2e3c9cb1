"""Where the time of an engine's step goes: median microseconds of each stage, and what all but the model's own work comes to.

    python benchmarks/step_overhead.py                          the built-in model and a random 0.5B shape, 1 and 32 clients
    python benchmarks/step_overhead.py --models penstock-mini   one model only

The engine runs in this process, so that its parts can be timed; its messages go through a socket as they do when it has a
process of its own. Every client decodes, and the first steps do not count. The last line is JSON.

    plan      which sequences run, and their memory        sample    logits to tokens
    build     slices to tensors                            commit    tokens recorded, blocks published, ends found
    forward   the model, up to the last hidden states      output    the rest of a step: what it gave, what each took
    logits    the model's head                             send      the step's message encoded and sent
                                                           receive   read and handed on, which the gateway's process does
    overhead  the engine's own: all but forward, logits and receive
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

import msgspec
import torch
from models import qwen_05b

from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.client import EngineClient, Stream
from penstock.engine.engine import Engine
from penstock.engine.link import EngineLink, FrameReader
from penstock.engine.loading import load_engine
from penstock.engine.messages import FromEngine, Job, Step

SHAPE = "qwen-0.5b-shape"
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0),
    "temperature": Sampling(temperature=0.8),
    "top_p": Sampling(temperature=0.8, top_p=0.95),
    "top_k": Sampling(temperature=0.8, top_k=40, top_p=0.95),
}
STAGES = ("plan", "build", "forward", "logits", "sample", "commit", "output", "send", "receive")
MODEL = ("forward", "logits")
WARM_STEPS = 8


def main() -> None:
    args = arguments()
    rows = []
    for name in args.models:
        path = str(qwen_05b(args.folder, torch.float32)) if name == SHAPE else name
        for clients in args.clients:
            engine = load_engine(path, EngineSpec(max_num_seqs=max(clients, 1), **dict(args.engine)), lambda *_: None)
            for sampling in args.sampling:
                rows.append(measure(engine, name, clients, sampling, args))
                print_row(rows[-1])
            del engine
    print(json.dumps({"benchmark": "step_overhead", "threads": torch.get_num_threads(), "microseconds": rows}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["penstock-mini", SHAPE], help=f"any that penstock serves, or {SHAPE}")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--sampling", nargs="+", choices=SAMPLINGS, default=["greedy", "top_p"])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200, help="at most so many are measured")
    parser.add_argument("--seconds", type=float, default=6.0, help="at most so long for each line")
    parser.add_argument("--engine", nargs="*", type=setting, default=[], help="name=value settings of the engine, such as weights=int4")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "penstock-benchmarks")
    return parser.parse_args()


def setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    return name, int(value) if value.isdecimal() else value


def measure(engine: Engine, name: str, clients: int, sampling: str, args: argparse.Namespace) -> dict[str, object]:
    add_jobs(engine, clients, SAMPLINGS[sampling], args)
    while any(sequence.num_pending > 1 for sequence in engine.scheduler.running) or engine.scheduler.num_waiting:
        engine.step()
    ours, theirs = socket.socketpair()
    with ours, theirs, timed(engine) as stages:
        link = EngineLink(ours, os.getppid())
        steps = [one_step(engine, link, theirs, stages) for _ in range(WARM_STEPS)]
        until = time.perf_counter() + args.seconds
        steps = [one_step(engine, link, theirs, stages) for _ in range(args.steps) if time.perf_counter() < until]
    for sequence in list(engine.scheduler.running):
        engine.abort(sequence.job.id)
    engine.audit()
    medians = {stage: median(step[stage] for step in steps) * 1e6 for stage in STAGES}
    overhead = median(sum(step[stage] for stage in STAGES if stage not in (*MODEL, "receive")) for step in steps) * 1e6
    whole = median(sum(step[stage] for stage in STAGES if stage != "receive") for step in steps) * 1e6
    return {"model": name, "clients": clients, "sampling": sampling, "steps": len(steps)} | medians | {
        "overhead": overhead, "step": whole, "share": overhead / whole,
    }  # fmt: skip


def add_jobs(engine: Engine, clients: int, sampling: Sampling, args: argparse.Namespace) -> None:
    steps = min(args.steps, engine.info.plan.max_model_len - args.prompt_tokens - WARM_STEPS - clients)
    asked = msgspec.structs.replace(sampling, max_tokens=steps + WARM_STEPS + clients, ignore_eos=True)
    vocab_size = engine.info.vocab_size
    for client in range(clients):
        prompt = tuple((client * 7919 + place * 104_729) % vocab_size for place in range(args.prompt_tokens))
        engine.add(Job(id=f"request-{client:032x}/{client}/0", prompt=prompt, sampling=msgspec.structs.replace(asked, seed=client)))


def one_step(engine: Engine, link: EngineLink, other: socket.socket, stages: dict[str, float]) -> dict[str, float]:
    """Seconds of each stage, the message's way included."""
    reader, decoder = FrameReader(), msgspec.msgpack.Decoder(FromEngine)
    client = EngineClient("measured")
    client._streams = {sequence.job.id: Stream("") for sequence in engine.scheduler.running}
    stages.clear()
    started = time.perf_counter()
    message = Step(outputs=engine.step(), stats=engine.stats())
    stepped = time.perf_counter()
    link.emit(message)
    sent = time.perf_counter()
    for received in reader.feed(other.recv(1 << 16)):
        client._receive(decoder.decode(received))
    ended = time.perf_counter()
    rest = stepped - started - sum(stages.values())
    return dict.fromkeys(STAGES, 0.0) | stages | {"output": rest, "send": sent - stepped, "receive": ended - sent}


@contextmanager
def timed(engine: Engine) -> Iterator[dict[str, float]]:
    """Seconds spent in each part of `engine`, added up until cleared."""
    spent: dict[str, float] = {}

    def clocked(stage: str, call: Callable[..., object]) -> Callable[..., object]:
        def clocked_call(*args: object, **more: object) -> object:
            started = time.perf_counter()
            result = call(*args, **more)
            spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - started
            return result

        return clocked_call

    parts = {"plan": engine.scheduler, "commit": engine.scheduler, "build": engine._batch, "sample": engine._sampler}
    with ExitStack() as stack:
        for stage, part in (parts | dict.fromkeys(MODEL, engine._model)).items():
            stack.enter_context(patch.object(type(part), stage, clocked(stage, getattr(type(part), stage))))
        yield spent


def print_row(row: dict[str, object]) -> None:
    stages = ", ".join(f"{stage} {row[stage]:.0f}" for stage in STAGES)
    print(f"{row['model']:>16}, {row['clients']:2} clients, {row['sampling']}: {stages}; "
          f"overhead {row['overhead']:.0f} of {row['step']:.0f} us ({row['share']:.1%})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
