"""How well a model predicts a text, computed by the engine as it would serve it: its weights, its kernels, its KV cache.

The definition is that of llama.cpp's `llama-perplexity`, so that the numbers can be laid side by side (see `app.windows`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from penstock.app.windows import Window, windows_to_score
from penstock.core.config import EngineSpec
from penstock.core.types import Sampling
from penstock.engine.messages import Job, MemoryPlan
from penstock.files import locate

Progress = Callable[[str, int, int], None]  # stage, done, in all


class Perplexity(Struct, frozen=True, kw_only=True):
    """exp of the mean negative log-likelihood of `tokens` tokens, and one standard error of it."""

    perplexity: float
    error: float
    tokens: int
    windows: int
    context: int
    seconds: float  # without loading
    plan: MemoryPlan


def measure(model: str, file: Path, spec: EngineSpec, *, context: int, windows: int | None, progress: Progress) -> Perplexity:
    """The perplexity of a file, or of its first `windows` windows. Raises UserError for too short a text, LoadError, MemoryPlanError."""
    return of_windows(model, windows_to_score(locate(model), file, context)[:windows], spec, context, progress)


def of_windows(model: str, windows: Sequence[Window], spec: EngineSpec, context: int, progress: Progress) -> Perplexity:
    """The perplexity of what is scored in windows of up to `context` tokens."""
    from penstock.engine.loading import load_engine  # loads torch

    spec = replace(spec, max_model_len=context, max_queue=len(windows), prefix_caching=False)  # what is cached would not be computed
    engine = load_engine(model, spec, progress)
    started = time.monotonic()
    for number, window in enumerate(windows):
        engine.add(Job(id=str(number), prompt=window.token_ids, sampling=Sampling(max_tokens=0, prompt_logprobs=0)))
    losses: list[float] = []
    done = 0
    while engine.has_work:
        for output in engine.step():
            scores = output.prompt_scores or ()
            losses += [-score.logprob for score in (scores[i] for i in windows[int(output.id)].scored) if score is not None]
            progress("perplexity", done := done + 1, len(windows))
    value, error = of_losses(losses)
    return Perplexity(
        perplexity=value,
        error=error,
        tokens=len(losses),
        windows=len(windows),
        context=context,
        seconds=time.monotonic() - started,
        plan=engine.info.plan,
    )


def of_losses(losses: Sequence[float]) -> tuple[float, float]:
    """Perplexity and its standard error, from negative log-likelihoods of tokens, taken as independent."""
    count = len(losses)
    mean = math.fsum(losses) / count
    variance = max(0.0, math.fsum(loss * loss for loss in losses) / count - mean * mean)
    value = math.exp(mean)
    return value, value * math.sqrt(variance / max(1, count - 1))
