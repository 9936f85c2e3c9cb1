"""Tensors of a Hugging Face folder: one `model.safetensors`, or the shards that `model.safetensors.index.json` lists.

Files are memory-mapped: a tensor's bytes are read when they are looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from penstock.core.errors import LoadError
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.gptq import matrix_format, matrix_parts, packing_of, unpack
from penstock.engine.models.table import from_hf
from penstock.engine.models.weights import Header
from penstock.engine.quant.quantized import Quantized
from penstock.files import ModelFiles

INDEX = "model.safetensors.index.json"
_DTYPES: Mapping[str, torch.dtype] = MappingProxyType({"F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16})  # else 4 bytes
_MAPPED_BYTES = 2**24  # of tensors, until a file is mapped anew


def read_config(files: ModelFiles) -> ModelConfig:
    """The model that the folder's config.json describes. LoadError where it, or how it is quantized, is not supported."""
    raw = files.json("config.json")
    if raw is None:
        raise LoadError(f"{files.path} has no config.json", hint="a Hugging Face folder holds config.json beside its *.safetensors")
    packing_of(files)  # refuses what cannot be read
    return from_hf(raw)


def weights(files: ModelFiles) -> Iterator[tuple[str, Tensor | Quantized]]:
    """Each tensor under its name in the checkpoint, shard by shard. LoadError where a file is missing or damaged."""
    packing = packing_of(files)
    if packing is None:
        return _tensors(files)
    return unpack(_tensors(files), (name for name, _ in _headers(files)), packing)


def headers(files: ModelFiles) -> Iterator[tuple[str, Header]]:
    """As `weights`, with how each tensor will come instead of the tensor."""
    packing = packing_of(files)
    packed: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, header in _headers(files):
        split = None if packing is None else matrix_parts(name)
        if split is None:
            yield name, header
        else:
            packed.setdefault(split[0], {})[split[1]] = header.shape
    if packing is not None:
        for name, shapes in packed.items():
            yield name, Header(*matrix_format(name, shapes, packing))


def _tensors(files: ModelFiles) -> Iterator[tuple[str, Tensor]]:
    for path in _shards(files):
        with _reading(path):
            yield from _tensors_of(path)


def _tensors_of(path: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a shard. It is mapped anew now and then, so that what was read and dropped no longer counts as ours."""
    with safe_open(path, framework="pt") as shard:
        names = deque(shard.keys())
    while names:
        with safe_open(path, framework="pt") as shard:
            num_bytes = 0
            while names and num_bytes < _MAPPED_BYTES:
                name = names.popleft()
                tensor = shard.get_tensor(name)
                num_bytes += tensor.nbytes
                yield name, tensor
                del tensor


def _headers(files: ModelFiles) -> Iterator[tuple[str, Header]]:
    """Name, shape and type of each tensor."""
    for path in _shards(files):
        with _reading(path), safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (safe_open is not a mapping)
                tensor = shard.get_slice(name)
                yield name, Header(tuple(tensor.get_shape()), _DTYPES.get(tensor.get_dtype(), torch.float32))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{path} cannot be read: {error}", hint="the file may be incomplete: download it again") from error


def _shards(files: ModelFiles) -> list[Path]:
    index = files.json(INDEX)
    names = _single(files.path) if index is None else _listed(index)
    missing = [name for name in sorted(names) if not (files.path / name).is_file()]
    if missing:
        raise LoadError(f"{files.path} lacks {', '.join(missing)}", hint="the download is incomplete: fetch the folder again")
    return [files.path / name for name in sorted(names)]


def _single(folder: Path) -> set[str]:
    """`model.safetensors`, or the only file there is: AutoGPTQ names it after the format."""
    found = {path.name for path in folder.glob("*.safetensors")}
    return found if len(found) == 1 else {"model.safetensors"}


def _listed(index: dict[str, object]) -> set[str]:
    """File names of an index. Only plain names in its own folder: an index never leads elsewhere."""
    shards = index.get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) else set()
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise LoadError(f"{INDEX} lists no usable files", hint="its weight_map names a *.safetensors file for each tensor")
    return names
