"""Engines on this CPU, on the same weights: Penstock beside llama.cpp, OpenVINO GenAI, vLLM and transformers, in one run.

    benchmarks/peers/install.sh                              the peers, once, outside the repository
    python benchmarks/cpu_engines.py                         a random 0.5B shape and the built-in model
    python benchmarks/cpu_engines.py --quick --only llama.cpp --models penstock-mini
    python benchmarks/cpu_engines.py --level avx2            as on a CPU without AVX-512

Every engine runs in a process of its own, with as many threads as this process has cores, the prompts and contexts of
`peers/protocol.py`, random tokens and greedy choice. Prefill goes from a prompt's submission to its first token; decode
counts only steps in which all clients get a token, at 256 tokens of context each.

    penstock       `Engine.step()`
    llama.cpp      `llama-bench` for prefill and one client, `llama-batched-bench` for more; a step there ends with its
                   logits, nothing is sampled; Q4_0 and Q8_0 are repacked at load, flash attention and KV in float16 as by default
    openvino       `ContinuousBatchingPipeline.step()`, chunks of up to 2,048 tokens, prefix cache off; KV in 8 bits as by default
    vllm           `LLMEngine.step()` in its own process, prefix cache off
    transformers   the eager forward with a dynamic cache, one static batch

The read bandwidth is measured before and after, the better counts: two or more threads reading 1 GiB. `floor_share` is
the weights' bytes a second that decoding for one client reads, as a part of it.

A peer that is not installed, or that fails, is named with the reason. The last line is JSON. Its ratios are ours over the
best peer's, and for one client over llama.cpp's at equal bits: int8 to Q8_0, int4 to Q4_0; `ratio_1` is the smaller of these.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import torch
from models import qwen_05b
from peers import prepare

SHAPE = "qwen-0.5b-shape"
FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "penstock": ("int8", "int4", "float"),
        "llama.cpp": ("Q8_0", "Q4_0", "Q4_0-pure", "Q4_K_M", "F16"),
        "openvino": ("int8", "int8:f32", "int4", "int4:f32"),
        "vllm": ("float32", "bfloat16"),
        "transformers": ("float32", "bfloat16"),
    }
)
EQUAL_BITS: Mapping[str, str] = MappingProxyType({"int8": "llama.cpp Q8_0", "int4": "llama.cpp Q4_0"})
AVX2_ONLY = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "BENCHMARK_CPU_LEVEL": "avx2"}
PEERS = Path(__file__).parent / "peers"
Figures = dict[str, float]  # "decode_8", "prefill_512", …: tokens/s
Row = dict[str, Any]  # tokens_per_s: Figures, repetitions, weights_bytes, floor_share, …; or left_out: why


@dataclass(frozen=True)
class Model:
    name: str
    folder: Path

    @property
    def config(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.folder / "config.json").read_text())
        return found


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    before = read_bandwidth()
    models = {}
    for name in args.models:
        models[name] = measure(Model(name, folder_of(name, args)), args)
    bandwidth = max(before, read_bandwidth())
    for rows in models.values():
        for row in rows.values():
            if row.get("weights_bytes") and "decode_1" in row["tokens_per_s"]:
                row["floor_share"] = row["tokens_per_s"]["decode_1"] * row["weights_bytes"] / bandwidth
    print(json.dumps(report(models, bandwidth, args)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[SHAPE, "penstock-mini"], help=f"built-in names, folders or {SHAPE}")
    parser.add_argument("--only", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="ENGINE", help="penstock and peers to run")
    parser.add_argument("--formats", nargs="+", metavar="FORMAT", help="of the weights, for every engine that knows them")
    parser.add_argument("--clients", nargs="*", type=int, default=[1, 8, 32])
    parser.add_argument("--prompts", nargs="*", type=int, default=[512, 2048], help="prompt lengths")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each figure; the median counts")
    parser.add_argument("--tokens", type=int, default=32, help="steps in one repetition of decoding")
    parser.add_argument("--rounds", type=int, default=1, help="times to go through all engines")
    parser.add_argument("--quick", action="store_true", help="one repetition of few steps, for a look")
    parser.add_argument("--level", choices=["native", "avx2"], default="native", help="instructions that every engine may use")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    default = os.environ.get("PENSTOCK_PEERS", "~/.cache/penstock-peers")
    parser.add_argument("--peers", type=Path, default=Path(default).expanduser(), help="where the peers are installed")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "penstock-benchmarks")
    parser.add_argument("--limit-s", type=float, default=1800, help="of one engine and format; what takes longer is left out")
    args = parser.parse_args()
    if args.quick:
        args.repeat, args.tokens = 1, 8
    return args


def folder_of(name: str, args: argparse.Namespace) -> Path:
    if name == SHAPE:
        return qwen_05b(args.folder, torch.float32)
    from penstock.files.locate import locate

    return locate(name).path


# -- measuring


def measure(model: Model, args: argparse.Namespace) -> dict[str, Row]:
    """A row for each engine and format: medians, all repetitions, or why there are none."""
    rows: dict[str, Row] = {}
    for round_number in range(args.rounds):
        for engine, form in contestants(args):
            row = rows.setdefault(f"{engine} {form}", {})
            if round_number and "left_out" in row:
                continue
            try:
                take(row, run(model, engine, form, args))
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                row["left_out"] = str(error)
            print(f"{model.name:>16} {engine:>12} {form:<9} {described(row)}", flush=True)
    return rows


def contestants(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for engine in args.only:
        for form in FORMATS[engine]:
            if args.formats is None or form in args.formats:
                yield engine, form
        if engine == "penstock":
            yield from ((engine, form) for form in args.formats or () if form not in known_to_peers())


def known_to_peers() -> set[str]:
    return {form for forms in FORMATS.values() for form in forms}


def take(row: Row, answer: Row) -> None:
    """Pool the repetitions of `answer` with those that `row` has."""
    pooled = row.setdefault("repetitions", {})
    for kind in ("prefill", "decode"):
        for number, rates in answer.pop(kind).items():
            pooled.setdefault(f"{kind}_{number}", []).extend(round(rate, 2) for rate in rates)
    row["tokens_per_s"] = {name: median(rates) for name, rates in pooled.items()}
    row |= answer


def run(model: Model, engine: str, form: str, args: argparse.Namespace) -> Row:
    """What the engine's runner answered. RuntimeError says why it could not."""
    python, target, runner_format = command(model, engine, form, args)
    most = model.config["max_position_embeddings"] - 32
    options = {
        "--format": [runner_format],
        "--threads": [args.threads],
        "--prompts": [length for length in args.prompts if length <= most],
        "--clients": args.clients,
        "--tokens": [args.tokens],
        "--repeat": [args.repeat],
        "--vocab-size": [model.config["vocab_size"]],
    }
    words = [str(word) for name, values in options.items() for word in (name, *values)]
    runner = PEERS / f"run_{engine.replace('.', '_')}.py"
    environment = os.environ | (AVX2_ONLY if args.level == "avx2" else {})
    done = subprocess.run(
        [str(python), str(runner), str(target), *words], capture_output=True, text=True, env=environment, timeout=args.limit_s, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise RuntimeError(f"exit code {done.returncode}: {said[-1][-400:]}")
    answer: Row = json.loads(lines[-1])
    return answer


def command(model: Model, engine: str, form: str, args: argparse.Namespace) -> tuple[Path, Path, str]:
    """The Python of `engine`, the model as it takes it and its word for the format."""
    here, models = Path(sys.executable), args.peers / "models" / model.name
    if engine == "llama.cpp":
        build = args.peers / ("llama.cpp-avx2" if args.level == "avx2" and (args.peers / "llama.cpp-avx2").exists() else "llama.cpp")
        installed(build / "bin" / "llama-bench")
        return here, prepare.gguf(model.folder, models, form, args.peers), str(build)
    if engine == "openvino":
        python = installed(args.peers / "openvino" / "bin" / "python")
        return python, prepare.openvino(model.folder, models, form.partition(":")[0], args.peers), form
    if engine == "vllm":
        if args.level == "avx2":
            raise RuntimeError("its instructions cannot be chosen")
        return installed(args.peers / "vllm" / "bin" / "python"), model.folder, form
    return here, model.folder, form


def installed(program: Path) -> Path:
    if not program.exists():
        raise RuntimeError(f"not installed ({program} is missing; see benchmarks/peers/install.sh)")
    return program


def described(row: Row) -> str:
    if "left_out" in row:
        return f"left out: {row['left_out']}"
    return ", ".join(f"{name.replace('_', ' ')}: {rate:.4g}" for name, rate in row["tokens_per_s"].items())


def read_bandwidth(num_bytes: int = 2**30, repeat: int = 8) -> float:
    """Bytes per second that all threads read together: the best of a sum and a matrix-vector product."""
    matrix = torch.ones(num_bytes // 4 // 65_536, 65_536)
    vector = torch.ones(65_536)
    fastest = float("inf")
    for _ in range(repeat):
        for read in (matrix.sum, lambda: torch.mv(matrix, vector)):
            started = time.perf_counter()
            read()
            fastest = min(fastest, time.perf_counter() - started)
    return num_bytes / fastest


# -- what comes of it


def report(models: dict[str, dict[str, Row]], bandwidth: float, args: argparse.Namespace) -> dict[str, object]:
    """Ratios of the first model at the top, and everything of every model below."""
    compared = {name: ratios(rows) for name, rows in models.items()}
    return {
        "benchmark": "cpu_engines",
        "cpu": cpu_name(),
        "level": args.level,
        "threads": args.threads,
        "read_bandwidth": bandwidth,
        **next(iter(compared.values())),
        "models": {name: {**compared[name], "engines": rows} for name, rows in models.items()},
    }


def ratios(rows: dict[str, Row]) -> dict[str, object]:
    """Ours over the best peer's, and who that is. None where either is missing."""
    figures = {name: row["tokens_per_s"] for name, row in rows.items() if "tokens_per_s" in row}
    equal = {form: over(figures.get(f"penstock {form}"), figures.get(peer), "decode_1") for form, peer in EQUAL_BITS.items()}
    found: dict[str, object] = {"ratio_1": min((ratio for ratio in equal.values() if ratio is not None), default=None)}
    found |= {f"ratio_1_{form}": ratio for form, ratio in equal.items()}
    for what in dict.fromkeys(what for rates in figures.values() for what in rates):
        ours = best(figures, what, ours=True)
        peer = best(figures, what, ours=False)
        name = "ratio_" + what.removeprefix("decode_")
        if what == "decode_1":
            name = "ratio_1_any"
        found[name] = over(figures.get(ours or ""), figures.get(peer or ""), what)
        found[name.replace("ratio", "best", 1)] = [ours, peer]
    return found


def best(figures: dict[str, Figures], what: str, *, ours: bool) -> str | None:
    """The fastest row for `what` among ours or the others'."""
    named = [name for name, rates in figures.items() if what in rates and name.startswith("penstock ") == ours]
    return max(named, key=lambda name: figures[name][what], default=None)


def over(ours: Figures | None, peer: Figures | None, what: str) -> float | None:
    return round(ours[what] / peer[what], 3) if ours and peer and what in ours and what in peer else None


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
