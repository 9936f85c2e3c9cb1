"""From a model's name to an engine that is ready to run: find the files, plan the memory, load the weights."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch

from penstock.core.config import EngineSpec
from penstock.engine.engine import Engine
from penstock.engine.kernels.kv import KVCache
from penstock.engine.memory import available_bytes, plan_memory, resolve_device, resolve_dtype
from penstock.engine.messages import EngineInfo
from penstock.engine.models.load import load_model, read_config
from penstock.files.locate import locate
from penstock.text.tokenizer import eos_token_ids

Progress = Callable[[str, int, int], None]


def load_engine(model: str, spec: EngineSpec, progress: Progress, clock: Callable[[], float] = time.monotonic) -> Engine:
    """Load `model` as `spec` says. Raises LoadError and MemoryPlanError, both meant for the user's eyes."""
    started = time.monotonic()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if spec.threads == "auto" else spec.threads)
    files = locate(model)
    config = read_config(files)
    device = resolve_device(spec.device)
    dtype = resolve_dtype(spec.dtype, device)
    plan = plan_memory(config, spec, device=device, dtype=dtype, available_bytes=available_bytes(device))
    decoder = load_model(files, device=device, dtype=dtype, progress=progress)
    kv = KVCache.allocate(config, plan.num_blocks, plan.block_size, dtype, device)
    info = EngineInfo(
        model=model,
        architecture=config.architecture,
        num_parameters=config.num_parameters,
        vocab_size=config.vocab_size,
        eos_token_ids=eos_token_ids(files),
        plan=plan,
        load_s=time.monotonic() - started,
    )
    return Engine(decoder, kv, info, spec, clock)
