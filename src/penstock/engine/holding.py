"""How a model is held in memory: by which kernels, its weights and its KV in which numbers.

    weights auto    a quantized checkpoint as it is, but for a float embedding and output layer, which become int8 on native
                    kernels; there, float weights of more than LARGE bytes as int8; anything else as it is stored
    kv_format auto  fp32 beside float weights, bf16 beside quantized ones; without native kernels the type of hidden states

Every "auto" of `EngineSpec.weights`, `dtype` and `kv_format` ends here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from penstock.core.config import EngineSpec
from penstock.core.errors import ConfigError
from penstock.engine.kernels.cpu.library import Library, best_library, libraries, load_library
from penstock.engine.kernels.cpu.packed import Packed, obstacle
from penstock.engine.memory import Holding, resolve_device, resolve_dtype
from penstock.engine.models.assembly import Form, Stored
from penstock.engine.models.config import ModelConfig
from penstock.engine.models.load import is_quantized, weights_bytes
from penstock.engine.models.native import kv_layout, why_not_native
from penstock.engine.models.size import Sizes, Target, format_for
from penstock.engine.quant.formats import parse_format
from penstock.engine.quant.rtn import round_to_nearest
from penstock.files import ModelFiles

log = logging.getLogger(__name__)

AS_STORED = "as stored"
LARGE = 64 * 2**20  # bytes; what is smaller stays in the processor's caches, and gains little

_KV_NAMES: Mapping[torch.dtype, str] = MappingProxyType({torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"})


def native_library(config: ModelConfig, spec: EngineSpec, device: torch.device) -> Library | None:
    """The native kernels, where they can run this model. Where they cannot, the log says why; ConfigError where they were asked for."""
    if device.type != "cpu" or spec.kernels == "torch":
        return None
    if spec.kernels not in ("auto", *libraries()):
        raise ConfigError(
            f"kernels is {spec.kernels!r}, and this installation on this processor has {', '.join([*libraries(), 'torch'])}",
            hint='use kernels = "auto"',
        )
    library = best_library() if spec.kernels == "auto" else load_library(spec.kernels)
    reason = why_not_native(config, spec.block_size)
    if library is None:
        reason = "penstock was installed without them: install a C++ compiler (g++ or clang++), then penstock again"
    if reason is not None:
        if spec.kernels != "auto":
            raise ConfigError(f"kernels is {spec.kernels!r}, which cannot run this model: {reason}", hint='use kernels = "auto"')
        log.warning("no native CPU kernels for this model, which will be slower on torch: %s", reason)
        return None
    return library


def resolve(files: ModelFiles, config: ModelConfig, spec: EngineSpec, library: Library | None) -> Holding:
    """What `spec` comes to for this model. Raises ConfigError for what these kernels cannot do."""
    device = resolve_device(spec.device)
    dtype = torch.float32 if library else resolve_dtype(spec.dtype, device)
    weights = _weights(files, config, spec, library)
    kv_format = _kv_format(spec, dtype, library, weights == AS_STORED or weights.startswith("int"))
    return Holding(
        device=device,
        dtype=dtype,
        weights=weights,
        weights_bytes=weights_bytes(files, config, _sizes(spec, weights, None if library else dtype)),
        kv_format=kv_format,
        kv_token_bytes=_native_kv_bytes(config, kv_format, spec.block_size) if library else config.kv_bytes_per_token(dtype),
        kernels=library.name if library else "torch",
    )


def native_form(spec: EngineSpec, holding: Holding, library: Library) -> Form:
    """Weights packed for `library`, one matrix after the other."""

    def finish(name: str, weight: Stored) -> Packed:
        return Packed(library, weight if obstacle(weight) is None else _as_float(weight))

    target = _target(holding.weights)
    return Form(
        dtype=float_type(spec),
        quantize=None if target is None else lambda name, weight: quantized(name, weight, target),
        finish=finish,
    )


def quantized(name: str, weight: Tensor, target: Target) -> Stored:
    """One matrix of a checkpoint in `target`, or as it is where its rows do not divide into groups."""
    chosen = format_for(name, weight.shape[1], target)
    return weight if chosen is None else round_to_nearest(weight, chosen)


def float_type(spec: EngineSpec) -> torch.dtype | None:
    """What float weights are stored as by native kernels, which calculate in float32; None: as in the file."""
    return None if spec.dtype == "auto" else resolve_dtype(spec.dtype, torch.device("cpu"))


def _weights(files: ModelFiles, config: ModelConfig, spec: EngineSpec, library: Library | None) -> str:
    asked = spec.weights
    if asked not in ("auto", "float"):
        asked = parse_format(asked).name
        if library is None:
            raise ConfigError(
                f"weights is {asked!r}, which needs the native CPU kernels, and this model runs without them",
                hint="use --weights auto; the log says why there are none",
            )
    if is_quantized(files):
        if library is None:
            return "float"
        if asked != "auto":
            raise ConfigError(
                f"weights is {asked!r}, but {files.name} holds quantized weights already",
                hint="use --weights auto, or the checkpoint that it was made from",
            )
        return AS_STORED
    if asked != "auto":
        return asked
    large = weights_bytes(files, config, Sizes(None)) > LARGE
    return "int8" if library and large and spec.dtype == "auto" else "float"


def _sizes(spec: EngineSpec, weights: str, eager: torch.dtype | None) -> Sizes:
    if eager is not None:
        return Sizes(eager, few_bits=False)
    return Sizes(float_type(spec), target=_target(weights))


def _kv_format(spec: EngineSpec, dtype: torch.dtype, library: Library | None, is_small: bool) -> str:
    own = _KV_NAMES[dtype]
    if library is None:
        if spec.kv_format not in ("auto", own):
            raise ConfigError(
                f"kv_format is {spec.kv_format!r}, and without native CPU kernels KV has the type of hidden states, {own!r}",
                hint="use --kv-format auto",
            )
        return own
    if spec.kv_format != "auto":
        return spec.kv_format
    return "bf16" if is_small else own


def _native_kv_bytes(config: ModelConfig, kv_format: str, block_size: int) -> int:
    """Of one token's keys and values, all layers."""
    return 2 * config.num_layers * kv_layout(config, kv_format, block_size).block_bytes // block_size


def _target(weights: str) -> Target | None:
    """Of a quantized checkpoint's floats, embedding and output layer are made small, too."""
    if weights == AS_STORED:
        return Target(None)
    return Target(parse_format(weights)) if weights.startswith("int") else None


def _as_float(weight: Stored) -> Tensor:
    return weight.float() if isinstance(weight, Tensor) else weight.dequantize()
