"""What few bits cost a model: perplexity of each format and method, through the engine, beside llama.cpp's Q8_0 and Q4_0.

    python benchmarks/quality.py MODEL --calibration FILE --text FILE [--llama-cpp FOLDER] [--tasks 40]

FILEs are texts or conversations (.jsonl), of which only the assistant's words are scored. Everything is measured on the same windows
of token ids, by the definition of `llama-perplexity`: the second half of each window counts. FOLDER holds llama.cpp's
`bin/llama-perplexity`, `bin/llama-quantize` and, beside it, its sources. It is given the same token ids (each token is one
letter of a vocabulary made for that), and its own log-probabilities are read from the file that it saves. `--tasks` asks the built-in
models that many held-out items of each task, too. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from msgspec.structs import replace

from penstock import Engine, Sampling
from penstock.app.perplexity import of_losses, of_windows
from penstock.app.quantizing import Reading, quantize
from penstock.app.windows import CONVERSATIONS, Window, conversations, windows_to_score
from penstock.core.config import EngineSpec
from penstock.engine.quant.formats import parse_format
from penstock.files import locate
from penstock.text.load import load_tokenizer

MADE = (
    ("int8", "rtn"), ("int8", "gptq"), ("int8", "awq"), ("int8-channel", "rtn"), ("int8-channel", "smoothquant"),
    ("int4", "rtn"), ("int4", "gptq"), ("int4", "awq"),
    ("int4-g128-asym", "rtn"), ("int4-g128-asym", "gptq"), ("int4-g128-asym", "awq"),
)  # fmt: skip
BEST = ("int4", "gptq")  # the one that KV formats are tried with, and tasks
CLIENTS = 32
KV_FORMATS = ("fp32", "bf16", "int8", "int4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder of float weights, or a built-in name")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--windows", type=int, default=200, help="most of the text that is scored")
    parser.add_argument("--read", type=int, default=64, help="windows of the calibration")
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--tasks", type=int, help="ask the built-in models so many items of each task")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    windows = scored_windows(args.model, args.text, args.context)[: args.windows]
    with TemporaryDirectory() as place:
        rows = Rows(args, windows)
        rows.ours(Path(place))
        if args.llama_cpp:
            rows.llama_cpp(Path(place))
        if args.tasks:
            rows.tasks(Path(place), args.tasks)
    print(json.dumps({"benchmark": "quality", "model": Path(args.model).name, "tokens": rows.tokens, "rows": rows.rows}))


def scored_windows(model: str, file: Path, context: int) -> list[Window]:
    """Of one length each; of conversations, which follow one another, only the assistant's words in the second halves count."""
    files = locate(model)
    if file.suffix != CONVERSATIONS:
        return windows_to_score(files, file, context)
    tokenizer = load_tokenizer(files)
    ids: list[int] = []
    said: list[int] = []
    for each, scored in conversations(files, file, tokenizer):
        said += [len(ids) + at for at in scored]
        ids += each
    counted = set(said)
    return [
        Window(
            (tokenizer.bos_token_id or ids[start], *ids[start + 1 : start + context]),
            tuple(at for at in range(context // 2 + 1, context) if start + at in counted),
        )
        for start in range(0, len(ids) - context + 1, context)
    ]


class Rows:
    """The table, printed as it grows. Each row: what it is, perplexity, its standard error."""

    def __init__(self, args: argparse.Namespace, windows: Sequence[Window]) -> None:
        self._args, self._windows = args, windows
        self._exact: float | None = None
        self.tokens = sum(len(window.scored) for window in windows)
        self.rows: list[dict[str, Any]] = []
        print(f"{args.model}: {self.tokens:,} tokens scored in {len(windows)} windows of {args.context}")

    def ours(self, place: Path) -> None:
        self._measure("float, kv fp32", self._args.model, weights="float", kv_format="fp32")
        for name, method in MADE:
            self._measure(f"{name} {method}, kv fp32", str(self._made(place, name, method)), kv_format="fp32")
        for kv_format in KV_FORMATS[1:]:
            self._measure(f"float, kv {kv_format}", self._args.model, weights="float", kv_format=kv_format)
        self._measure(f"{' '.join(BEST)}, kv int8", str(self._made(place, *BEST)), kv_format="int8")

    def llama_cpp(self, place: Path) -> None:
        exact: float | None = None
        for name in ("F32", "Q8_0", "Q4_0"):
            file = self._gguf(place, name)
            value, error = self._by_llama_cpp(file, place)
            exact = exact or value
            self._add(f"llama.cpp {name}", value, error, exact)
            if name != "F32":
                self._measure(f"the same {name} file, kv fp32", str(file), kv_format="fp32")

    def tasks(self, place: Path, items: int) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        for label, model, spec in (
            ("float, kv fp32", self._args.model, EngineSpec(weights="float", kv_format="fp32")),
            ("int8 at load, kv int8", self._args.model, EngineSpec(weights="int8", kv_format="int8")),
            ("int4 at load, kv bf16", self._args.model, EngineSpec(weights="int4")),
            (f"{' '.join(BEST)}, kv int8", str(self._made(place, *BEST)), EngineSpec(kv_format="int8")),
            ("float, kv int4", self._args.model, EngineSpec(weights="float", kv_format="int4")),
        ):
            right, asked = self._answered(model, replace(spec, threads=self._args.threads), items)
            self.rows.append({"name": f"tasks: {label}", "right": right, "asked": asked})
            print(f"{'tasks: ' + label:<34} {right / asked:9.2%}  {right} / {asked}", flush=True)

    def _answered(self, model: str, spec: EngineSpec, items: int) -> tuple[int, int]:
        from training.curriculum.turn import MINI
        from training.evaluate import SAMPLED, renamed, rows

        name = self._args.model if "penstock" in self._args.model else MINI
        probes = [renamed(probe, name) for row, asked in rows(items, 1) if row != SAMPLED for probe in asked]
        with Engine(model, spec, progress=False) as engine:
            greedy = Sampling(temperature=0.0, max_tokens=220)
            with ThreadPoolExecutor(CLIENTS) as pool:
                replies = list(pool.map(lambda probe: engine.chat(probe.messages, greedy).text, probes))
        right = sum(probe.grade(probe.turn, reply.strip()) for probe, reply in zip(probes, replies, strict=True))
        return right, len(probes)

    def _made(self, place: Path, name: str, method: str) -> Path:
        out = place / f"{name}-{method}"
        if not out.exists():
            reading = None if method == "rtn" else Reading(file=self._args.calibration, windows=self._args.read, context=self._args.context)
            quantize(self._args.model, out, parse_format(name), method, reading, lambda *_: None)
        return out

    def _measure(self, label: str, model: str, **spec: Any) -> None:
        found = of_windows(model, self._windows, EngineSpec(threads=self._args.threads, **spec), self._args.context, lambda *_: None)
        self._exact = self._exact or found.perplexity
        self._add(label, found.perplexity, found.error)

    def _add(self, label: str, value: float, error: float, exact: float | None = None) -> None:
        more = value / (exact or self._exact or value) - 1
        self.rows.append({"name": label, "perplexity": value, "error": error, "more": more})
        print(f"{label:<34} {value:9.4f} ± {error:.4f}  {more:+8.3%}", flush=True)

    # -- llama.cpp

    def _gguf(self, place: Path, name: str) -> Path:
        """The model in llama.cpp's format, its vocabulary spelled as numbers."""
        from peers import gguf_file

        exact, file = place / "F32.gguf", place / f"{name}.gguf"
        if not exact.exists():
            gguf_file.vocabulary = spelled
            sources = next(path for path in sorted(self._args.llama_cpp.parent.glob("llama.cpp-source*")) if path.is_dir())
            gguf_file.write_gguf(locate(self._args.model).path, exact, sources / "gguf-py")
        if not file.exists():
            quantizer = self._args.llama_cpp / "bin" / "llama-quantize"
            subprocess.run([quantizer, exact, file, name, str(self._args.threads)], check=True, capture_output=True)
        return file

    def _by_llama_cpp(self, file: Path, place: Path) -> tuple[float, float]:
        """As `llama-perplexity` says; where only some tokens are scored, from the file in which it saves its log-probabilities."""
        text, saved = place / "ids.txt", place / "logits.bin"
        text.write_text("".join(character(token) for window in self._windows for token in window.token_ids))
        perplexity = self._args.llama_cpp / "bin" / "llama-perplexity"
        options = ["-c", str(self._args.context), "-t", str(self._args.threads), "--save-all-logits", str(saved)]
        done = subprocess.run([perplexity, "-m", file, "-f", text, *options], capture_output=True, text=True, check=False)
        final = re.search(r"PPL = ([\d.]+) \+/- ([\d.]+)", done.stdout + done.stderr)
        if done.returncode or not final:
            raise SystemExit(f"llama-perplexity failed: {done.stderr[-2000:]}")
        losses = list(self._saved_losses(saved))
        saved.unlink()
        every_one = all(len(window.scored) == self._args.context - 1 - self._args.context // 2 for window in self._windows)
        return (float(final[1]), float(final[2])) if every_one else of_losses(losses)

    def _saved_losses(self, saved: Path) -> Iterator[float]:
        """Of the scored tokens. The file has for each position a scale, an offset and 16-bit codes, cut at 16 below the best."""
        context, first = self._args.context, self._args.context // 2
        data = np.memmap(saved, dtype=np.uint8, mode="r")
        vocab, chunks = (int(number) for number in data[12:20].view(np.int32))
        width = 2 * ((vocab + 1) // 2) + 4
        given = data[20 : 20 + 4 * chunks * context].view(np.int32).reshape(chunks, context)
        if given.tolist() != [list(window.token_ids) for window in self._windows]:
            raise SystemExit("llama.cpp has read other tokens")
        codes = data[20 + given.nbytes :].view(np.uint16).reshape(chunks, context - 1 - first, width)
        for window, rows in zip(self._windows, codes, strict=True):
            for at in window.scored:
                row = rows[at - first - 1]
                scale, least = row[:4].view(np.float32)
                yield -float(scale * float(row[4 + window.token_ids[at]]) + least)


def spelled(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    """A vocabulary in which each token is one character of three bytes, which are merged in two steps."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}  # as GPT-2 writes bytes
    tokens = ["".join(shown[byte] for byte in character(token).encode()) for token in range(config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges(
        [*dict.fromkeys(f"{token[0]} {token[1]}" for token in tokens), *(f"{token[:2]} {token[2]}" for token in tokens)]
    )
    writer.add_add_bos_token(False)


def character(token: int) -> str:
    """What stands for a token id in the text that llama.cpp reads: a letter of a script with enough of them."""
    if token > 20_000:
        raise SystemExit("the vocabulary is too large to be spelled in single characters")
    return chr(0x4E00 + token)


if __name__ == "__main__":
    main()
