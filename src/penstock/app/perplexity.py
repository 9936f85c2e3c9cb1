"""How well a model predicts a text, computed by the engine as it would serve it: its weights, its kernels, its KV cache.

The definition is that of llama.cpp's `llama-perplexity`, so that the numbers can be laid side by side. The text is cut into
windows of `context` tokens that do not overlap, a remainder is dropped. In each, the tokens of the second half are scored
but for its first one, so that each has between half a window and a whole one before it. Where the model's tokenizer puts a
token at the beginning of a text, it takes the place of each window's first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from penstock.core.config import EngineSpec
from penstock.core.errors import UserError
from penstock.core.types import Sampling
from penstock.engine.messages import EngineInfo, Job
from penstock.files import locate
from penstock.text.load import load_tokenizer
from penstock.text.tokenizer import Tokenizer

LEAST_CONTEXT = 4  # so that the second half holds a token that is scored

Progress = Callable[[str, int, int], None]  # stage, done, in all


class Perplexity(Struct, frozen=True, kw_only=True):
    """exp of the mean negative log-likelihood of `tokens` tokens, and one standard error of it."""

    perplexity: float
    error: float
    tokens: int
    windows: int
    context: int
    seconds: float  # without loading
    info: EngineInfo


def measure(model: str, text: str, spec: EngineSpec, *, context: int, windows: int | None, progress: Progress) -> Perplexity:
    """The perplexity of `text`, or of its first `windows` windows. Raises UserError for too short a text or too long a context."""
    from penstock.engine.loading import load_engine  # loads torch

    cut = cut_windows(text, load_tokenizer(locate(model)), context)[:windows]
    engine = load_engine(model, replace(spec, max_model_len=context, prefix_caching=False), progress)
    started = time.monotonic()
    losses: list[float] = []
    for number, prompt in enumerate(cut):
        engine.add(Job(id=str(number), prompt=prompt, sampling=Sampling(max_tokens=0, prompt_logprobs=0)))
    done = 0
    while engine.has_work:
        for output in engine.step():
            scores = output.prompt_scores or ()
            losses += [-score.logprob for score in scores[context // 2 + 1 :] if score is not None]
            progress("perplexity", done := done + 1, len(cut))
    value, error = of_losses(losses)
    return Perplexity(
        perplexity=value,
        error=error,
        tokens=len(losses),
        windows=len(cut),
        context=context,
        seconds=time.monotonic() - started,
        info=engine.info,
    )


def cut_windows(text: str, tokenizer: Tokenizer, context: int) -> list[tuple[int, ...]]:
    """Windows of `context` token ids. Raises UserError where there is not even one."""
    if context < LEAST_CONTEXT:
        raise UserError(f"a context of {context} tokens leaves nothing to score", hint=f"use {LEAST_CONTEXT} or more, such as 512")
    tokens = tokenizer.encode(text)
    if len(tokens) < context:
        raise UserError(f"the text has {len(tokens)} tokens, a window takes {context}", hint="use a longer text or a shorter context")
    first = _first_token(tokenizer, tokens)
    return [(first or tokens[begin], *tokens[begin + 1 : begin + context]) for begin in range(0, len(tokens) - context + 1, context)]


def _first_token(tokenizer: Tokenizer, tokens: Sequence[int]) -> int | None:
    """What the tokenizer puts before a text; None: nothing."""
    return tokenizer.bos_token_id if tokens[0] == tokenizer.bos_token_id else None


def of_losses(losses: Sequence[float]) -> tuple[float, float]:
    """Perplexity and its standard error, from negative log-likelihoods of tokens, taken as independent."""
    count = len(losses)
    mean = math.fsum(losses) / count
    variance = max(0.0, math.fsum(loss * loss for loss in losses) / count - mean * mean)
    value = math.exp(mean)
    return value, value * math.sqrt(variance / max(1, count - 1))
