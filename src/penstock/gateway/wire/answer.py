"""What both routes answer: the envelope around choices, usage, and the pieces of a choice put together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

from msgspec import UNSET, Struct, UnsetType, field, structs

from penstock.core.types import Delta, PromptInfo, ToolCall, ToolCallPiece, Usage
from penstock.gateway.wire.explain import Explained
from penstock.gateway.wire.logprobs import Ranked


class PromptDetails(Struct, frozen=True):
    cached_tokens: int


class CompletionDetails(Struct, frozen=True):
    reasoning_tokens: int


class UsageBody(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Answer(Struct, frozen=True, kw_only=True):
    """A whole answer. The prompt's two are vLLM's, for chat; `/v1/completions` has them in its choices."""

    id: str
    kind: str = field(name="object")
    created: int
    model: str
    choices: Sequence[object]
    usage: UsageBody
    prompt_logprobs: list[dict[str, Ranked] | None] | UnsetType = UNSET
    prompt_token_ids: tuple[int, ...] | UnsetType = UNSET
    penstock: Explained | UnsetType = UNSET


class Prompt(Struct, frozen=True, kw_only=True):
    """A prompt as it may be shown. `first_token` is the name of the token that has no logprob."""

    info: PromptInfo = PromptInfo(token_ids=())
    text: str = ""
    first_token: str = ""


class Shape(Protocol):
    """How one route writes its answers; everything else is the same for both."""

    whole: str
    chunk: str

    def opening(self, index: int, prompt: Prompt) -> object | None:
        """What a streamed choice begins with, before anything was generated."""

    def opening_extra(self, prompt: Prompt) -> bytes:
        """JSON members for the chunk around an opening, each with its comma before it."""

    def offset(self, prompt: Prompt) -> int:
        """Characters of a choice's tokens before the first generated one."""

    def piece(self, index: int, delta: Delta, offset: int) -> object:
        """A streamed choice's next piece; `offset` characters of tokens came before it."""

    def answer(self, prompts: Sequence[Prompt], choices: Sequence[Delta], usage: Usage) -> Answer:
        """The whole answer; each of `choices` is one choice's pieces joined."""


def usage_body(usage: Usage) -> UsageBody:
    return UsageBody(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        PromptDetails(usage.cached_tokens),
        CompletionDetails(usage.reasoning_tokens),
    )


def total(usages: Sequence[Usage]) -> Usage:
    """The sum of several requests' usage."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
    )


def joined(deltas: Sequence[Delta]) -> Delta:
    """A choice's pieces as one."""
    scored = [delta.logprobs for delta in deltas if delta.logprobs is not None]
    return structs.replace(
        deltas[-1],
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        tool_calls=tuple(piece for delta in deltas for piece in delta.tool_calls),
        token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
        logprobs=tuple(itertools.chain.from_iterable(scored)) if scored else None,
    )


def whole_calls(pieces: Sequence[ToolCallPiece]) -> tuple[ToolCall, ...]:
    """The calls that the pieces of one choice add up to, in the order of their index."""
    calls: dict[int, list[ToolCallPiece]] = {}
    for piece in pieces:
        calls.setdefault(piece.index, []).append(piece)
    return tuple(_whole_call(index, calls[index]) for index in sorted(calls))


def _whole_call(index: int, pieces: Sequence[ToolCallPiece]) -> ToolCall:
    """Some servers say id and name again with every piece, some give no id."""
    return ToolCall(
        id=next((piece.id for piece in pieces if piece.id), f"call_{index}"),
        name=next((piece.name for piece in pieces if piece.name), ""),
        arguments="".join(piece.arguments for piece in pieces),
    )
