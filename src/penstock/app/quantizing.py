"""Quantizing a model ahead of serving it: from a folder and perhaps a text to a folder in GPTQ's layout.

The new folder is written beside its place under another name and renamed at the end, so that it is there whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from msgspec import Struct

from penstock.app.windows import windows_to_read
from penstock.core.errors import UserError
from penstock.engine.quant.formats import WeightFormat
from penstock.files import ModelFiles, locate

METHODS = ("rtn", "gptq", "awq", "smoothquant")
_LEFT_BEHIND = ("*.safetensors", "*.safetensors.index.json", "config.json", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.onnx", ".*")

Progress = Callable[[str, int, int], None]  # stage, done, in all


class Reading(Struct, frozen=True, kw_only=True):
    """What a method reads: `windows` windows of `context` tokens, spread evenly over a file."""

    file: Path
    windows: int = 64
    context: int = 512


class Made(Struct, frozen=True, kw_only=True):
    """What was written."""

    num_bytes: int  # of weights
    source_bytes: int
    floats: list[str]  # matrices that are not quantized, because their sizes do not allow it


def quantize(name: str, out: Path, form: WeightFormat, method: str, reading: Reading | None, progress: Progress) -> Made:
    """Quantize model `name` into the folder `out`. UserError or LoadError where that cannot be done, before any work where possible."""
    if (method == "rtn") != (reading is None):
        needs = "takes no --calibration" if reading else "needs --calibration FILE, a text like those that the model will see"
        raise UserError(f"the method {method} {needs}", hint="rtn looks at weights only; gptq, awq and smoothquant read a text")
    from penstock.engine.quant.ahead import quantize_folder  # loads torch

    files = locate(name)
    if files.format != "safetensors" or (files.json("config.json") or {}).get("quantization_config"):
        what = f"a .{files.path.suffix[1:]} file" if files.format != "safetensors" else "quantized already"
        raise UserError(f"{name} is {what}: only a folder of float weights can be quantized", hint="use the model that it was made from")
    windows = [] if reading is None else _windows(files, reading)
    with _appearing(out) as folder:
        floats = quantize_folder(files, folder, form, method, windows, progress)
        _copy_others(files.path, folder)
        made = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return Made(num_bytes=made, source_bytes=sum(file.stat().st_size for file in files.path.glob("*.safetensors")), floats=floats)


def _copy_others(source: Path, folder: Path) -> None:
    """Tokenizer, chat template, licence and whatever else is not weights."""
    for file in sorted(source.iterdir()):
        if file.is_file() and not any(file.match(pattern) for pattern in _LEFT_BEHIND):
            shutil.copyfile(file, folder / file.name)


def _windows(files: ModelFiles, reading: Reading) -> list[tuple[int, ...]]:
    """Evenly over the text. UserError where the text has fewer."""
    windows = windows_to_read(files, reading.file, reading.context)
    if len(windows) < reading.windows:
        raise UserError(
            f"{reading.file} has {len(windows)} windows of {reading.context} tokens, {reading.windows} are asked for",
            hint=f"use a longer text, or --windows {len(windows)}",
        )
    return [windows[i * len(windows) // reading.windows] for i in range(reading.windows)]


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` if all goes well and is gone otherwise."""
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is a folder that is not empty", hint="choose another, or empty it first")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", hint="choose the name of a new folder")
    out = out.resolve()  # what a link points to
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out} cannot be made: {error.strerror}", hint="check the path and its permissions") from error
    try:
        yield folder
        folder.chmod(0o755)
        folder.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}", hint="check the path, and the space on its disk") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
