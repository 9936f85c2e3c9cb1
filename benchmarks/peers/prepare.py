"""One model in the form each peer takes, made once from its Hugging Face folder and made anew when that changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent


def gguf(folder: Path, target: Path, form: str, peers: Path) -> Path:
    """`target`/`form`.gguf, made by llama.cpp's own `llama-quantize` from a float32 file.

    Q4_0-pure is Q4_0 in every matrix; Q4_0 keeps the embedding and output layer at 6 or 8 bits.
    """
    full, wanted = target / "F32.gguf", target / f"{form}.gguf"
    source = peers / "llama.cpp-source" / "gguf-py"
    make(full, folder, lambda: run(sys.executable, HERE / "gguf_file.py", folder, full, source))
    pure = ("--pure",) if form.endswith("-pure") else ()
    tool = peers / "llama.cpp" / "bin" / "llama-quantize"
    make(wanted, folder, lambda: run(tool, *pure, full, wanted, form.removesuffix("-pure")))
    return wanted


def openvino(folder: Path, target: Path, form: str, peers: Path) -> Path:
    """`target`/openvino-`form`, with the weight compression that `optimum-cli` chooses for it: int8 by channel; int4 in groups of 128,
    both with zero points, and the embedding in int8."""
    wanted = target / f"openvino-{form}"
    tool = peers / "openvino" / "bin" / "optimum-cli"
    options = ("--task", "text-generation-with-past", "--weight-format", form)
    make(wanted / "openvino_model.bin", folder, lambda: run(tool, "export", "openvino", "--model", folder, *options, wanted))
    return wanted


def make(wanted: Path, folder: Path, maker: Callable[[], None]) -> None:
    """Call `maker` unless `wanted` is there and not older than the weights in `folder`."""
    if wanted.exists() and wanted.stat().st_mtime >= (folder / "model.safetensors").stat().st_mtime:
        return
    wanted.parent.mkdir(parents=True, exist_ok=True)
    maker()


def run(*command: object) -> None:
    """Raises RuntimeError with the end of what the command said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-800:]}")
