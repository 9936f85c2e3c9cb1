"""From a model's name to an engine that is ready to run: find the files, plan the memory, load the weights."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import torch

from penstock.core.config import EngineSpec
from penstock.core.errors import LoadError
from penstock.core.types import Sampling
from penstock.engine.engine import Engine
from penstock.engine.holding import native_form, native_library, resolve
from penstock.engine.kernels.cpu.library import Pool, load_library
from penstock.engine.kernels.select import best_kernels
from penstock.engine.memory import Holding, available_bytes, plan_memory, resolve_device
from penstock.engine.messages import EngineInfo, MemoryPlan
from penstock.engine.models.load import load_model, load_weights, read_config
from penstock.engine.models.model import Model
from penstock.engine.models.native import NativeDecoder
from penstock.files import ModelFiles, locate

Progress = Callable[[str, int, int], None]


def load_engine(model: str, spec: EngineSpec, progress: Progress, clock: Callable[[], float] = time.monotonic) -> Engine:
    """Load `model` as `spec` says. Raises LoadError and MemoryPlanError, both meant for the user's eyes."""
    started = time.monotonic()
    if spec.threads != "auto":  # torch's own choice: the cores that this process may use, or OMP_NUM_THREADS
        torch.set_num_threads(spec.threads)
    files = locate(model)
    config = read_config(files)
    library = native_library(config, spec, resolve_device(spec.device))
    holding = resolve(files, config, spec, library)
    plan = plan_memory(config, spec, holding, available_bytes(holding.device))
    loaded = load_held(files, spec, holding, plan, progress)
    info = EngineInfo(
        model=model,
        architecture=config.architecture,
        num_parameters=config.num_parameters,
        vocab_size=config.vocab_size,
        eos_token_ids=config.eos_token_ids,
        plan=plan,
        default_sampling=default_sampling(files),
        load_s=time.monotonic() - started,
    )
    return Engine(loaded, loaded.allocate_kv(plan.num_blocks, plan.block_size), info, spec, clock)


def load_held(files: ModelFiles, spec: EngineSpec, holding: Holding, plan: MemoryPlan, progress: Progress) -> Model:
    """Read the weights into the form that `holding` settled."""
    if not holding.is_native:
        return load_model(
            files,
            device=holding.device,
            dtype=holding.dtype,
            kernels=best_kernels(holding.device),
            progress=progress,
            max_model_len=plan.max_model_len,
        )
    library = load_library(holding.kernels)
    config = read_config(files)
    weights = load_weights(files, config, native_form(spec, holding, library), progress)
    return NativeDecoder(
        config,
        weights,
        Pool(library, torch.get_num_threads()),
        kv_format=holding.kv_format,
        served_len=plan.max_model_len,
        max_tokens=plan.max_step_tokens,
    )


def default_sampling(files: ModelFiles) -> Sampling:
    """What `generation_config.json` says of sampling; where it is silent, plain sampling at temperature 1."""
    given = files.json("generation_config.json") or {}
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    chosen = {name: given[name] for name in names if given.get(name) is not None}
    if chosen.get("top_k") == 0:
        del chosen["top_k"]  # transformers' way to say "all"
    try:
        return msgspec.convert(chosen, Sampling)
    except msgspec.ValidationError as error:
        raise LoadError(f"{files.name}: generation_config.json: {error}") from None
