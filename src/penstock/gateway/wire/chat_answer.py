"""Answers of `/v1/chat/completions`, whole and in chunks."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from penstock.core.types import Delta, FinishReason, ToolCallPiece, Usage
from penstock.gateway.wire.answer import Answer, Prompt, usage_body, whole_calls
from penstock.gateway.wire.call import GenerationCall
from penstock.gateway.wire.logprobs import ChatLogprobs, chat_logprobs, prompt_logprobs


class Function(Struct, frozen=True):
    name: str
    arguments: str


class Called(Struct, frozen=True, kw_only=True):
    """A whole call. `arguments` is as the model wrote it."""

    id: str
    type: str = "function"
    function: Function


class FunctionPiece(Struct, frozen=True, omit_defaults=True):
    name: str | None = None
    arguments: str | UnsetType = UNSET


class CalledPiece(Struct, frozen=True, kw_only=True):
    """A streamed part of a call."""

    index: int
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: FunctionPiece


class AnswerMessage(Struct, frozen=True, kw_only=True):
    """`content` is null where the model only calls tools. `reasoning_content` is the name that DeepSeek gave it, and most follow."""

    role: str = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: tuple[Called, ...] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: int | str | None = None
    token_ids: tuple[int, ...] | UnsetType = UNSET


class ChatDelta(Struct, frozen=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: tuple[CalledPiece, ...] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class ChatPiece(Struct, frozen=True, kw_only=True):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: tuple[int, ...] | UnsetType = UNSET


class ChatShape:
    """The assistant's message; a stream begins with its role."""

    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def __init__(self, call: GenerationCall) -> None:
        self._call = call
        self._begun: set[tuple[int, int]] = set()  # calls, by choice and index, whose first piece was written

    def opening(self, index: int, prompt: Prompt) -> ChatPiece:
        return ChatPiece(index=index, delta=ChatDelta("assistant", ""))

    def opening_extra(self, prompt: Prompt) -> bytes:
        return b',"prompt_token_ids":' + msgspec.json.encode(prompt.info.token_ids) if self._call.token_ids else b""

    def offset(self, prompt: Prompt) -> int:
        return 0

    def piece(self, index: int, delta: Delta, offset: int) -> ChatPiece:
        return ChatPiece(
            index=index,
            delta=ChatDelta(UNSET, delta.text or UNSET, self._calls(index, delta.tool_calls) or UNSET, delta.reasoning or UNSET),
            logprobs=self._logprobs(delta),
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason if delta.finish_reason else UNSET,
            token_ids=delta.token_ids if self._call.token_ids else UNSET,
        )

    def answer(self, prompts: Sequence[Prompt], choices: Sequence[Delta], usage: Usage) -> Answer:
        info = prompts[0].info
        return Answer(
            id=self._call.id,
            kind=self.whole,
            created=self._call.created,
            model=self._call.model,
            choices=[self._choice(index, delta) for index, delta in enumerate(choices)],
            usage=usage_body(usage),
            prompt_logprobs=UNSET if info.logprobs is None else prompt_logprobs(info.logprobs),
            prompt_token_ids=info.token_ids if self._call.token_ids else UNSET,
        )

    def _choice(self, index: int, delta: Delta) -> ChatChoice:
        return ChatChoice(
            index=index,
            message=_message(delta),
            logprobs=self._logprobs(delta),
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
            token_ids=delta.token_ids if self._call.token_ids else UNSET,
        )

    def _calls(self, choice: int, pieces: Sequence[ToolCallPiece]) -> tuple[CalledPiece, ...]:
        return tuple(self._piece(choice, piece) for piece in pieces)

    def _piece(self, choice: int, piece: ToolCallPiece) -> CalledPiece:
        """The first piece of a call has its id, its type and its name, and no other: clients add up what comes twice."""
        if (choice, piece.index) in self._begun:
            return CalledPiece(index=piece.index, function=FunctionPiece(None, piece.arguments))
        self._begun.add((choice, piece.index))
        function = FunctionPiece(piece.name, piece.arguments)
        return CalledPiece(index=piece.index, id=piece.id or f"call_{piece.index}", type="function", function=function)

    def _logprobs(self, delta: Delta) -> ChatLogprobs | None:
        return None if delta.logprobs is None else chat_logprobs(delta.logprobs, as_ids=self._call.tokens_as_ids)


def _message(delta: Delta) -> AnswerMessage:
    calls = tuple(Called(id=call.id, function=Function(call.name, call.arguments)) for call in whole_calls(delta.tool_calls))
    return AnswerMessage(
        content=None if calls and not delta.text else delta.text,
        tool_calls=calls or UNSET,
        reasoning_content=delta.reasoning or UNSET,
    )
