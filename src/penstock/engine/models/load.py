"""From model files to a decoder, whatever their format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec
import torch
from torch import Tensor

from penstock.engine.kernels.protocol import Kernels
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.table import token_ids
from penstock.engine.models.weights import Progress, Room
from penstock.files import ModelFiles


class Format(Protocol):
    """A module that reads one file format. Tensors carry Hugging Face names and its rope layout (halves, not pairs)."""

    def read_config(self, files: ModelFiles) -> ModelConfig: ...
    def weights(self, files: ModelFiles) -> Iterator[tuple[str, Tensor]]: ...


def read_config(files: ModelFiles) -> ModelConfig:
    """What the files describe, without reading a weight. LoadError where that is unknown or not supported."""
    config = _format(files).read_config(files)
    stops = token_ids((files.json("generation_config.json") or {}).get("eos_token_id"))
    return msgspec.structs.replace(config, eos_token_ids=stops) if stops else config


@torch.inference_mode()
def load_model(
    files: ModelFiles,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    kernels: Kernels,
    progress: Progress,
    max_model_len: int | None = None,
) -> Decoder:
    """Read all weights as `dtype` onto `device`, each straight to its place. LoadError where they do not fit their config.

    `max_model_len` is the longest context that will be served, which settles the length-dependent rope scalings.
    `progress` is told bytes written, after each tensor.
    """
    config = read_config(files)
    room = Room(config, dtype, device)
    room.fill(_format(files).weights(files), progress)
    return Decoder(config, room.weights, kernels, max_model_len or config.max_position_embeddings)


def _format(files: ModelFiles) -> Format:
    match files.format:
        case "safetensors":
            from penstock.engine.models import safetensors

            return safetensors
        case "gguf":
            from penstock.engine.models import gguf

            return gguf
        case "llama2c":
            from penstock.engine.models import llama2c

            return llama2c
