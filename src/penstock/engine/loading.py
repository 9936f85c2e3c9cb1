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
from penstock.engine.kernels.kv import KVCache
from penstock.engine.kernels.select import best_kernels
from penstock.engine.memory import available_bytes, plan_memory, resolve_device, resolve_dtype
from penstock.engine.messages import EngineInfo
from penstock.engine.models.load import load_model, read_config
from penstock.files import ModelFiles, locate

Progress = Callable[[str, int, int], None]


def load_engine(model: str, spec: EngineSpec, progress: Progress, clock: Callable[[], float] = time.monotonic) -> Engine:
    """Load `model` as `spec` says. Raises LoadError and MemoryPlanError, both meant for the user's eyes."""
    started = time.monotonic()
    if spec.threads != "auto":  # torch's own choice: the cores that this process may use, or OMP_NUM_THREADS
        torch.set_num_threads(spec.threads)
    files = locate(model)
    config = read_config(files)
    device = resolve_device(spec.device)
    dtype = resolve_dtype(spec.dtype, device)
    plan = plan_memory(config, spec, device=device, dtype=dtype, available_bytes=available_bytes(device))
    decoder = load_model(
        files, device=device, dtype=dtype, kernels=best_kernels(device), progress=progress, max_model_len=plan.max_model_len
    )  # fmt: skip
    kv = KVCache.allocate(config, plan.num_blocks, plan.block_size, dtype, device)
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
    return Engine(decoder, kv, info, spec, clock)


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
