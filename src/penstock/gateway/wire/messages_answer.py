"""Answers of `/v1/messages`: whole, and as Anthropic's named events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from penstock.core.errors import UpstreamFailed
from penstock.core.types import Delta, Failure, Finish, ToolCall, ToolCallPiece, Usage, Vectors
from penstock.gateway.wire.answer import Prompt, joined, whole_calls
from penstock.gateway.wire.anthropic_errors import anthropic_error_event
from penstock.gateway.wire.call import Call
from penstock.gateway.wire.collect import check_finish
from penstock.gateway.wire.explain import Explained, Told

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]

INVALID = "INVALID_JSON"  # an input that is no JSON object is the text under this name, as Anthropic advises
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class TextBlock(Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class ThinkingBlock(Struct, frozen=True, tag_field="type", tag="thinking"):
    """What the upstream told apart as reasoning. There is no signature: nobody checks it."""

    thinking: str
    signature: str = ""


class ToolUseBlock(Struct, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, object]


class MessagesUsage(Struct, frozen=True, kw_only=True):
    """Prompt tokens are in one of three places: read from a cache, written to one, or neither."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessageBody(Struct, frozen=True, kw_only=True):
    """A whole answer, and what a stream begins with."""

    id: str
    kind: str = field(name="type", default="message")
    role: str = "assistant"
    model: str
    content: tuple[ThinkingBlock | TextBlock | ToolUseBlock, ...] = ()
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessagesUsage
    penstock: Explained | UnsetType = UNSET


class Stopped(Struct, frozen=True):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, frozen=True, kw_only=True):
    """The last but one event of a stream."""

    kind: str = field(name="type", default="message_delta")
    delta: Stopped
    usage: MessagesUsage
    penstock: Explained | UnsetType = UNSET


class TokenCount(Struct, frozen=True):
    """The answer of `/v1/messages/count_tokens`."""

    input_tokens: int


class WholeMessage:
    """One call's events, put together at the end."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._deltas: list[Delta] = []
        self._finish = Finish(reason="stop")

    def prompt(self, place: int, prompt: Prompt) -> None:
        """Nothing of the prompt is told."""

    def add(self, place: int, event: Delta | Vectors | Finish) -> None:
        """Take in an event. Raises Failed where the request ended in a failure."""
        if isinstance(event, Delta):
            self._deltas.append(event)
        else:
            self._finish = check_finish(event)

    def body(self, told: Told) -> bytes:
        """The answer as JSON."""
        answer = joined(self._deltas or [Delta(finish_reason=self._finish.reason)])
        stopped = _stopped(answer, self._finish)
        thinking = (ThinkingBlock(answer.reasoning),) if answer.reasoning else ()
        text = (TextBlock(answer.text),) if answer.text else ()
        body = MessageBody(
            id=self._call.id,
            model=self._call.model,
            content=(*thinking, *text, *map(_tool_use, whole_calls(answer.tool_calls))),
            stop_reason=stopped.stop_reason,
            stop_sequence=stopped.stop_sequence,
            usage=usage_of(self._finish.usage),
            penstock=told.explained or UNSET,
        )
        return msgspec.json.encode(body)


class MessageEvents:
    """One call's events as Anthropic's. Blocks follow each other: one is open at a time, and none opens twice."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._begun = False
        self._prompt_usage = Usage()
        self._index = -1  # of the latest block
        self._open: str | None = None  # its kind; of a call, with the call's number
        self._calls_seen: set[int] = set()
        self._last = Delta()  # the latest that told why it ended
        self._finish = Finish(reason="stop")
        self._around = (b"", b"")  # the text of an event that is text alone

    def prompt(self, place: int, prompt: Prompt) -> None:
        """Take in what the prompt became; the first event tells its tokens."""
        info = prompt.info
        self._prompt_usage = Usage(prompt_tokens=len(info.token_ids), cached_tokens=info.num_cached_tokens)

    def add(self, place: int, event: Delta | Vectors | Finish) -> bytes:
        """What an event makes of the stream; maybe nothing. Raises Failed where the request ended in a failure."""
        if not isinstance(event, Delta):
            self._finish = check_finish(event)
            return b""
        if self._open == "text" and event.text and event.finish_reason is None and not (event.tool_calls or event.reasoning):
            return self._around[0] + msgspec.json.encode(event.text) + self._around[1]
        written = [] if self._begun else [self._opening()]
        if event.reasoning:
            written += self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            written.append(self._delta({"type": "thinking_delta", "thinking": event.reasoning}))
        if event.text:
            written += self._enter("text", {"type": "text", "text": ""})
            written.append(self._delta({"type": "text_delta", "text": event.text}))
        for piece in event.tool_calls:
            written += self._piece(piece)
        if event.finish_reason is not None:
            self._last = event
        return b"".join(written)

    def end(self, told: Told) -> bytes:
        """The last events."""
        stopped = _stopped(self._last, self._finish, calls=bool(self._calls_seen))
        last = MessageDelta(delta=stopped, usage=usage_of(self._finish.usage), penstock=told.explained or UNSET)
        written = [] if self._begun else [self._opening()]
        return b"".join((*written, *self._close(), _event("message_delta", msgspec.json.encode(last)), told.comment, STOP))

    def failed(self, failure: Failure, request_id: str) -> bytes:
        """The last event of a stream that cannot go on."""
        return anthropic_error_event(failure, request_id)

    def _opening(self) -> bytes:
        self._begun = True
        message = MessageBody(id=self._call.id, model=self._call.model, usage=usage_of(self._prompt_usage))
        return _event("message_start", b'{"type":"message_start","message":' + msgspec.json.encode(message) + b"}") + PING

    def _enter(self, kind: str, block: Mapping[str, object]) -> list[bytes]:
        """Be in a block of this kind: the open one, or a new one that begins with `block`."""
        if self._open == kind:
            return []
        written = self._close()
        self._index += 1
        self._open = kind
        if kind == "text":
            head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":'
            self._around = (head % self._index, b"}}\n\n")
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return [*written, _event("content_block_start", msgspec.json.encode(start))]

    def _close(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [_event("content_block_stop", b'{"type":"content_block_stop","index":%d}' % self._index)]

    def _piece(self, piece: ToolCallPiece) -> list[bytes]:
        kind = f"call {piece.index}"
        if self._open != kind and piece.index in self._calls_seen:
            raise UpstreamFailed("the upstream went back to a call that another had followed", hint="ask without stream")
        self._calls_seen.add(piece.index)
        block = {"type": "tool_use", "id": piece.id or f"toolu_{piece.index}", "name": piece.name or "", "input": {}}
        written = self._enter(kind, block)
        if piece.arguments:
            written.append(self._delta({"type": "input_json_delta", "partial_json": piece.arguments}))
        return written

    def _delta(self, delta: dict[str, object]) -> bytes:
        return _event("content_block_delta", msgspec.json.encode({"type": "content_block_delta", "index": self._index, "delta": delta}))


def usage_of(usage: Usage) -> MessagesUsage:
    return MessagesUsage(
        input_tokens=max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens),
        cache_creation_input_tokens=usage.cache_write_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
    )


def _stopped(last: Delta, finish: Finish, *, calls: bool = False) -> Stopped:
    """Why the answer ended. Some upstreams say "stop" after a call, too."""
    reason = last.finish_reason or finish.reason
    if reason == "length":
        return Stopped("max_tokens", None)
    if reason == "content_filter":
        return Stopped("refusal", None)
    if calls or last.tool_calls or reason == "tool_calls":
        return Stopped("tool_use", None)
    if isinstance(last.stop_reason, str):
        return Stopped("stop_sequence", last.stop_reason)
    return Stopped("end_turn", None)


def _tool_use(call: ToolCall) -> ToolUseBlock:
    return ToolUseBlock(call.id, call.name, _input(call.arguments))


def _input(arguments: str) -> dict[str, object]:
    if not arguments.strip():
        return {}
    try:
        return msgspec.json.decode(arguments, type=dict[str, object])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {INVALID: arguments}


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
