"""From model files to weights, or to a decoder of floats, whatever their format."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from typing import Protocol

import msgspec
import torch

from penstock.engine.kernels.protocol import Kernels
from penstock.engine.models.assembly import Assembly, Form, Progress, Stored
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.decoder import Decoder
from penstock.engine.models.size import Sizes
from penstock.engine.models.table import token_ids
from penstock.engine.models.weights import Header, Weights
from penstock.engine.quant.formats import WeightFormat
from penstock.files import ModelFiles


class Format(Protocol):
    """A module that reads one file format. Tensors carry Hugging Face names and its rope layout (halves, not pairs)."""

    def read_config(self, files: ModelFiles) -> ModelConfig: ...
    def weights(self, files: ModelFiles) -> Iterator[tuple[str, Stored]]: ...
    def headers(self, files: ModelFiles) -> Iterator[tuple[str, Header]]: ...


def read_config(files: ModelFiles) -> ModelConfig:
    """What the files describe, without reading a weight. LoadError where that is unknown or not supported."""
    config = _format(files).read_config(files)
    stops = token_ids((files.json("generation_config.json") or {}).get("eos_token_id"))
    return msgspec.structs.replace(config, eos_token_ids=stops) if stops else config


@torch.inference_mode()
def load_weights(files: ModelFiles, config: ModelConfig, form: Form, progress: Progress) -> Weights:
    """Read all weights, each brought to its `form` as it comes. LoadError where they do not fit their config.

    `progress` is told after each tensor how much of the model has come, in bytes of its floats.
    """
    weights = Assembly(config, form).weights(_format(files).weights(files), progress)
    _give_back_freed()
    return weights


def is_quantized(files: ModelFiles) -> bool:
    """Whether the files hold matrices in few bits already."""
    return any(isinstance(header.format, WeightFormat) for _, header in _format(files).headers(files))


def weights_bytes(files: ModelFiles, config: ModelConfig, sizes: Sizes) -> int:
    """Bytes that `load_weights` will hold, from the headers of the files alone."""
    return sizes.of(config, dict(_format(files).headers(files)))


def load_model(
    files: ModelFiles,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    kernels: Kernels,
    progress: Progress,
    max_model_len: int | None = None,
) -> Decoder:
    """The model in floats: all weights as `dtype` on `device`. Raises LoadError as `load_weights` does.

    `max_model_len` is the longest context that will be served, which settles the length-dependent rope scalings.
    """
    config = read_config(files)
    weights = load_weights(files, config, Form(dtype, device, few_bits=False), progress)
    return Decoder(config, weights, kernels, max_model_len or config.max_position_embeddings)


def _give_back_freed() -> None:
    """Freed memory between weights goes back to the system: glibc keeps what the parts of layers took, a tenth of a model."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


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
