"""llama.cpp's own perplexity of a model on a text, to hold beside `penstock eval perplexity` with the same window.

    python benchmarks/peers/perplexity.py MODEL TEXT --window 512            a folder, a built-in name or a .gguf file
    python benchmarks/peers/perplexity.py MODEL TEXT --formats F32 Q8_0 Q4_0

A folder is converted and quantized first. `llama-perplexity` cuts the tokens into windows of `--window`, puts the
beginning-of-text token in place of each window's first token where the model has one, and scores the second half of each. The last line
is JSON: perplexity and its standard error by format. llama.cpp quantizes the keys and values to nothing: they are float16.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import prepare

FOUND = re.compile(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)")
CHUNKS = re.compile(r"over (\d+) chunks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--window", type=int, default=512, help="tokens")
    parser.add_argument("--formats", nargs="+", default=["F32", "F16", "Q8_0", "Q4_0"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    default = os.environ.get("PENSTOCK_PEERS", "~/.cache/penstock-peers")
    parser.add_argument("--peers", type=Path, default=Path(default).expanduser())
    args = parser.parse_args()
    found = {}
    for form, file in files(args):
        found[form] = row = perplexity(file, args)
        print(f"{form:>8}: {row['perplexity']:.4f} +/- {row['error']:.4f} over {row['windows']} windows", flush=True)
    print(json.dumps({"benchmark": "perplexity", "window": args.window, "llama.cpp": found}))


def files(args: argparse.Namespace) -> list[tuple[str, Path]]:
    if args.model.endswith(".gguf"):
        return [(Path(args.model).stem, Path(args.model))]
    from penstock.files.locate import locate

    folder = locate(args.model).path
    return [(form, prepare.gguf(folder, args.peers / "models" / folder.name, form, args.peers)) for form in args.formats]


def perplexity(file: Path, args: argparse.Namespace) -> dict[str, float]:
    tool = args.peers / "llama.cpp" / "bin" / "llama-perplexity"
    command = [tool, "-m", file, "-f", args.text, "-c", args.window, "-t", args.threads]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    estimate, chunks = FOUND.search(said), CHUNKS.search(said)
    if done.returncode or estimate is None or chunks is None:
        sys.exit(f"{tool} on {file}: exit code {done.returncode}: {said[-600:]}")
    return {"perplexity": float(estimate[1]), "error": float(estimate[2]), "windows": int(chunks[1])}


if __name__ == "__main__":
    main()
