"""Times llama.cpp with its own tools. `model` is a GGUF file, `format` the folder with its programs.

`llama-bench` gives prefill and one client (a context of its own before the timed steps), `llama-batched-bench` several
clients: one prompt is computed and copied to each client's own part of the cache, then all decode together.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from protocol import Case, answer, case

CACHE_STEP = 256  # llama.cpp pads each client's part of the cache to it


def main() -> None:
    given = case(__doc__)
    prefill = {length: bench(given, "-p", length, "-n", 0) for length in given.prompts}
    before = given.context - given.tokens // 2
    decode = {clients: batched(given, clients, before) for clients in given.clients if clients > 1}
    if 1 in given.clients:
        decode[1] = bench(given, "-p", 0, "-n", given.tokens, "-d", before)
    answer(prefill, dict(sorted(decode.items())))


def bench(given: Case, *options: object) -> list[float]:
    threads = ("-t", given.threads, "-r", given.repeat, "-o", "json")
    return [float(rate) for rate in json.loads(tool(given, "llama-bench", *threads, *options))[0]["samples_ts"]]


def batched(given: Case, clients: int, before: int) -> list[float]:
    per_client = -(-(before + given.tokens) // CACHE_STEP) * CACHE_STEP
    printed = tool(
        given, "llama-batched-bench", "-t", given.threads, "-tb", given.threads, "-c", clients * per_client, "-pps", "-npp", before,
        "-ntg", given.tokens, "-npl", ",".join([str(clients)] * given.repeat), "--output-format", "jsonl",
    )  # fmt: skip
    return [json.loads(line)["speed_tg"] for line in printed.splitlines() if line.startswith("{")]


def tool(given: Case, name: str, *options: object) -> str:
    command = [str(Path(given.format) / "bin" / name), "-m", given.model, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


main()
