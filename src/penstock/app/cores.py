"""Engines that serve side by side divide the machine's cores.

An engine's threads wait for one another several times in each layer. Where two engines have a thread on every core, each waits for
the other's, too, and both come to a crawl.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec.structs import replace

from penstock.core.config import ModelSettings


def share_cores(models: Sequence[ModelSettings], cores: int) -> list[ModelSettings]:
    """The models with "auto" threads settled where there are several; a single one keeps its "auto", which is all cores."""
    if len(models) < 2:
        return list(models)
    share = max(1, cores // len(models))
    return [replace(model, engine=replace(model.engine, threads=share)) if model.engine.threads == "auto" else model for model in models]


def usable_cores() -> int:
    """Those that this process may use, or OMP_NUM_THREADS, as torch counts them."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
