"""From a name that a user typed to files that can be loaded.

A name is, in this order: a built-in model, a folder or file on disk, a Hugging Face id. Only formats that cannot run
code are accepted: pickled checkpoints (`pytorch_model.bin`, `*.pt`) are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct

from penstock.core.config import DEFAULT_MODEL
from penstock.core.errors import LoadError, closest
from penstock.files.hub import download

Format = Literal["safetensors", "gguf", "llama2c"]


def builtin_models(folder: Path) -> Mapping[str, Path]:
    """The models that `folder` holds, by name, the default one first."""
    folders = sorted((file.parent for file in folder.glob("*/config.json")), key=lambda path: (path.name != DEFAULT_MODEL, path.name))
    return MappingProxyType({path.name: path for path in folders})


BUILTIN = builtin_models(Path(__file__).parents[1] / "builtin")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FORMATS: Mapping[str, Format] = MappingProxyType({".gguf": "gguf", ".bin": "llama2c"})
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class ModelFiles(Struct, frozen=True):
    """One model on disk. `path` is a folder for safetensors and a file for the other formats."""

    name: str  # as the user wrote it
    format: Format
    path: Path
    builtin: bool = False

    def json(self, name: str) -> dict[str, object] | None:
        """The JSON object in `path / name`, or None where there is none. Raises LoadError when it cannot be read as one."""
        file = self.path / name
        if self.format != "safetensors" or not file.is_file():
            return None
        try:
            return msgspec.json.decode(file.read_bytes(), type=dict[str, object])
        except (OSError, msgspec.DecodeError) as error:
            raise LoadError(f"{file} cannot be read as a JSON object: {error}", hint="get the file again") from error


def locate(name: str, *, progress: bool = True) -> ModelFiles:
    """Find the files of model `name`, downloading them when it is a Hugging Face id that is not cached yet.

    `progress` shows a bar on stderr while downloading. Raises LoadError when there is nothing that can be loaded.
    """
    if name in BUILTIN:
        return ModelFiles(name, "safetensors", _checked_folder(BUILTIN[name]), builtin=True)
    try:
        return _on_disk(name, Path(name).expanduser()) or _on_hub(name, progress)
    except OSError as error:
        raise LoadError(f"model {name!r} cannot be read: {error.strerror}", hint="check the path and its permissions") from error


def _on_disk(name: str, path: Path) -> ModelFiles | None:
    if path.is_dir():
        return ModelFiles(name, "safetensors", _checked_folder(path))
    if path.is_file():
        return ModelFiles(name, _file_format(path), path)
    return None


def _on_hub(name: str, progress: bool) -> ModelFiles:
    if not _HUB_ID.fullmatch(name) or name.startswith(".") or name.endswith(tuple(_FORMATS)):
        raise _unknown(name)
    return ModelFiles(name, "safetensors", _checked_folder(download(name, progress=progress)))


def _unknown(name: str) -> LoadError:
    near = closest(name, BUILTIN)
    kinds = "a built-in model, a folder, a .gguf file, a llama2.c .bin file or a Hugging Face id (org/name)"
    known = f"did you mean {near!r}?" if near else f"built in: {', '.join(BUILTIN)}"
    return LoadError(f"there is no model {name!r}: it is not {kinds}", hint=known)


def _file_format(path: Path) -> Format:
    if _is_pickled(path):
        raise LoadError(f"{path} is a pickled checkpoint, which can run code and is never loaded", hint=_CONVERT)
    known = _FORMATS.get(path.suffix)
    if known is None:
        raise LoadError(
            f"{path} is not a model file: its name ends with {path.suffix or 'nothing'!r}",
            hint="expected .gguf or a llama2.c .bin; for safetensors pass the folder that holds config.json",
        )
    return known


_CONVERT = "convert it to safetensors first, for example with `save_pretrained(folder, safe_serialization=True)` in transformers"


def _is_pickled(path: Path) -> bool:
    """Torch checkpoints are zip archives (since 1.6) or bare pickles; llama2.c files begin with a small integer."""
    if not any(path.match(pattern) for pattern in _PICKLED):
        return False
    with path.open("rb") as file:
        head = file.read(4)
    return head[:2] == b"PK" or head[:1] == b"\x80"


def _checked_folder(folder: Path) -> Path:
    """`folder` when it holds config.json and safetensors, else LoadError."""
    if not any(folder.glob("*.safetensors")):
        raise _no_weights(folder)
    if not (folder / "config.json").is_file():
        raise LoadError(f"{folder} holds no config.json", hint="copy the model's config.json beside its weights")
    return folder


def _no_weights(folder: Path) -> LoadError:
    pickled = [file.name for pattern in _PICKLED for file in folder.glob(pattern) if _is_pickled(file)]
    if pickled:
        return LoadError(f"{folder} holds only a pickled checkpoint ({pickled[0]}), which can run code and is never loaded", hint=_CONVERT)
    single = sorted(file.name for suffix in _FORMATS for file in folder.glob(f"*{suffix}"))
    if single:
        return LoadError(f"{folder} holds no *.safetensors", hint=f"pass the file itself: {folder / single[0]}")
    return LoadError(f"{folder} holds no *.safetensors", hint="pass the folder of a model in Hugging Face layout")
