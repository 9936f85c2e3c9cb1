"""Tensors of a Hugging Face folder: one `model.safetensors`, or the shards that `model.safetensors.index.json` lists.

Files are memory-mapped: a tensor's bytes are read when it is copied, and never held twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from penstock.core.errors import LoadError
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.table import from_hf
from penstock.files import ModelFiles

INDEX = "model.safetensors.index.json"


def read_config(files: ModelFiles) -> ModelConfig:
    """The model that the folder's config.json describes."""
    raw = files.json("config.json")
    if raw is None:
        raise LoadError(f"{files.path} has no config.json", hint="a Hugging Face folder holds config.json beside its *.safetensors")
    return from_hf(raw)


def weights(files: ModelFiles) -> Iterator[tuple[str, Tensor]]:
    """Each tensor under its name in the checkpoint, shard by shard. LoadError where a file is missing or damaged."""
    for path in _shards(files):
        try:
            with safe_open(path, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118 (safe_open is not a mapping)
                    yield name, shard.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise LoadError(f"{path} cannot be read: {error}", hint="the file may be incomplete: download it again") from error


def _shards(files: ModelFiles) -> list[Path]:
    index = files.json(INDEX)
    names = {"model.safetensors"} if index is None else _listed(index)
    missing = [name for name in sorted(names) if not (files.path / name).is_file()]
    if missing:
        raise LoadError(f"{files.path} lacks {', '.join(missing)}", hint="the download is incomplete: fetch the folder again")
    return [files.path / name for name in sorted(names)]


def _listed(index: dict[str, object]) -> set[str]:
    """File names of an index. Only plain names in its own folder: an index never leads elsewhere."""
    shards = index.get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) else set()
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise LoadError(f"{INDEX} lists no usable files", hint="its weight_map names a *.safetensors file for each tensor")
    return names
