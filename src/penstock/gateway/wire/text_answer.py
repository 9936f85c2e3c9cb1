"""Answers of `/v1/completions`, whole and in chunks: the same choices in both."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType, structs

from penstock.core.types import Delta, FinishReason, Usage
from penstock.gateway.wire.answer import Answer, Prompt, usage_body
from penstock.gateway.wire.call import GenerationCall
from penstock.gateway.wire.logprobs import Ranked, TextLogprobs, chained, prompt_logprobs, text_end, text_logprobs, unpredicted


class TextChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: tuple[int, ...] | UnsetType = UNSET
    prompt_logprobs: list[dict[str, Ranked] | None] | UnsetType = UNSET
    prompt_token_ids: tuple[int, ...] | UnsetType = UNSET


class TextShape:
    """A text; with echo it begins with the prompt."""

    whole = "text_completion"
    chunk = "text_completion"

    def __init__(self, call: GenerationCall) -> None:
        self._call = call
        self._echo = call.requests[0].echo
        self._scored = call.requests[0].sampling.logprobs is not None

    def opening(self, index: int, prompt: Prompt) -> TextChoice | None:
        if not self._echo and not self._call.token_ids:
            return None
        return TextChoice(
            index=index,
            text=prompt.text if self._echo else "",
            logprobs=self._prompt_scores(prompt),
            prompt_token_ids=prompt.info.token_ids if self._call.token_ids else UNSET,
        )

    def opening_extra(self, prompt: Prompt) -> bytes:
        return b""

    def offset(self, prompt: Prompt) -> int:
        scores = self._prompt_scores(prompt)
        return len(prompt.text) * self._echo if scores is None else text_end(scores)

    def piece(self, index: int, delta: Delta, offset: int) -> TextChoice:
        as_ids = self._call.tokens_as_ids
        return TextChoice(
            index=index,
            text=delta.text,
            logprobs=None if delta.logprobs is None else text_logprobs(delta.logprobs, as_ids=as_ids, offset=offset),
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason if delta.finish_reason else UNSET,
            token_ids=delta.token_ids if self._call.token_ids else UNSET,
        )

    def answer(self, prompts: Sequence[Prompt], choices: Sequence[Delta], usage: Usage) -> Answer:
        return Answer(
            id=self._call.id,
            kind=self.whole,
            created=self._call.created,
            model=self._call.model,
            choices=[self._choice(index, prompts[index // self._call.n], delta) for index, delta in enumerate(choices)],
            usage=usage_body(usage),
        )

    def _choice(self, index: int, prompt: Prompt, delta: Delta) -> TextChoice:
        echoed = self._prompt_scores(prompt)
        piece = self.piece(index, delta, 0 if echoed else self.offset(prompt))
        scores = prompt.info.logprobs
        return structs.replace(
            piece,
            text=prompt.text + piece.text if self._echo else piece.text,
            logprobs=piece.logprobs if echoed is None or piece.logprobs is None else chained(echoed, piece.logprobs),
            prompt_logprobs=UNSET if scores is None else prompt_logprobs(scores),
            prompt_token_ids=prompt.info.token_ids if self._call.token_ids else UNSET,
        )

    def _prompt_scores(self, prompt: Prompt) -> TextLogprobs | None:
        """The echoed prompt's logprobs, where both were asked for."""
        if not (self._echo and self._scored) or not prompt.info.logprobs:
            return None
        known = [token for token in prompt.info.logprobs if token is not None]
        return chained(unpredicted(prompt.first_token), text_logprobs(known, as_ids=self._call.tokens_as_ids, offset=0))
