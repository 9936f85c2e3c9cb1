"""An upstream whose answers are written beforehand: for tests, and for trying a pipeline without a model."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Literal

from msgspec import Struct

from penstock.core.errors import InvalidRequest
from penstock.core.types import (
    Delta,
    Event,
    Finish,
    Health,
    ModelCard,
    PromptInfo,
    Request,
    Route,
    Sampling,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from penstock.trace import Tab

_CODE_POINTS = 0x110000


class Script(Struct, frozen=True, kw_only=True):
    """One answer: its pieces of text, and what goes wrong after so many of them (0: before anything is sent).

    Each token of piece `i` has the log-probability `logprobs[i]`; pieces beyond have the last one's.
    """

    pieces: tuple[str, ...] = ("Hello", ",", " world", ".")
    logprobs: tuple[float, ...] = (-0.5,)
    delay_s: float = 0.0  # before each piece
    error: Exception | None = None
    error_after: int = 0
    hang_after: int | None = None


class FakeUpstream:
    """A model whose tokens are Unicode code points and whose answers are scripted, the last script for ever.

    It honours `n`, `max_tokens`, `logprobs` and `prompt_logprobs`. `requests` are those it was asked, `open` is how
    many answers are under way.
    """

    def __init__(self, *scripts: Script, model: str = "fake", default_sampling: Sampling | None = None) -> None:
        *first, last = scripts or (Script(),)
        self._scripts = itertools.chain(first, itertools.repeat(last))
        self._card = ModelCard(id=model, created=0, max_model_len=4096, default_sampling=default_sampling or Sampling())
        self.requests: list[Request] = []
        self.open = 0
        self.state = Health(state="ready")

    def models(self) -> tuple[ModelCard, ...]:
        return (self._card,)

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        script = next(self._scripts)
        self.open += 1
        delivered = 0
        try:
            async for event in _play(script, request):
                if isinstance(event, Delta):
                    delivered += len(event.token_ids)
                yield event
        finally:
            tab.usage = Usage(prompt_tokens=len(_prompt(request).token_ids), completion_tokens=delivered)
            self.open -= 1

    def health(self) -> Health:
        return self.state

    async def close(self) -> None:
        self.state = Health(state="stopped")

    async def tokenize(self, request: Request) -> PromptInfo:
        return _prompt(request)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return "".join(self.token_strings(token_ids))

    def token_strings(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        wrong = next((token for token in token_ids if not 0 <= token < _CODE_POINTS), None)
        if wrong is not None:
            raise InvalidRequest(f"token id {wrong} is outside the vocabulary of {_CODE_POINTS}", param="tokens")
        return tuple(map(_character, token_ids))


async def _play(script: Script, request: Request) -> AsyncGenerator[Event, None]:
    text = "".join(script.pieces)[: request.sampling.max_tokens]
    pieces = _cut(script.pieces, len(text))
    prompt = _prompt(request)
    for number in range(len(pieces) + 1):
        if script.error is not None and number == script.error_after:
            raise script.error
        if number == script.hang_after:
            await asyncio.Event().wait()
        if number == len(pieces):
            break
        await asyncio.sleep(script.delay_s)
        if number == 0:
            yield prompt
        last = number == len(pieces) - 1
        for index in range(request.n):
            logprob = script.logprobs[min(number, len(script.logprobs) - 1)]
            yield _delta(request, index, pieces[number], logprob, _reason(script, text) if last else None)
    usage = Usage(prompt_tokens=len(prompt.token_ids), completion_tokens=len(text) * request.n)
    yield Finish(reason=_reason(script, text), usage=usage)


def _cut(pieces: Sequence[str], length: int) -> list[str]:
    """The pieces of the first `length` characters; at least one, so that each choice has a last piece."""
    starts = itertools.accumulate(map(len, pieces), initial=0)
    cut = [piece[: max(0, length - start)] for piece, start in zip(pieces, starts, strict=False)]
    return [piece for piece in cut if piece] or [""]


def _reason(script: Script, text: str) -> Literal["stop", "length"]:
    return "stop" if len(text) == sum(map(len, script.pieces)) else "length"


def _prompt(request: Request) -> PromptInfo:
    if request.prompt_token_ids is not None:
        ids, text = request.prompt_token_ids, None
    else:
        text = request.prompt if request.prompt is not None else _chat(request)
        ids = tuple(map(ord, text))
    top = request.sampling.prompt_logprobs
    logprobs = None if top is None else (None, *(_scored(token, top) for token in ids[1:]))
    return PromptInfo(token_ids=ids, text=text, logprobs=logprobs)


def _chat(request: Request) -> str:
    return "".join(f"{message.role}: {message.content}\n" for message in request.messages or ())


def _delta(request: Request, index: int, piece: str, logprob: float, reason: Literal["stop", "length"] | None) -> Delta:
    ids = tuple(map(ord, piece))
    top = request.sampling.logprobs
    logprobs = None if top is None else tuple(_scored(token, top, logprob) for token in ids)
    return Delta(index=index, text=piece, token_ids=ids, logprobs=logprobs, finish_reason=reason)


def _scored(token: int, num_top: int, logprob: float = -0.5) -> TokenLogprob:
    """A token and its alternatives: the code points after it, each a little less likely."""
    top = tuple(TopLogprob(token + rank, _character(token + rank), logprob - rank) for rank in range(num_top))
    return TokenLogprob(token, _character(token), logprob, top)


def _character(token: int) -> str:
    """A code point as text; the halves of surrogate pairs are none."""
    return chr(token).encode(errors="replace").decode()
