"""Answers of Anthropic's Messages API, whole and streamed, as our events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from penstock.core.errors import UpstreamFailed
from penstock.core.types import Delta, Finish, FinishReason, Request, ToolCallPiece, Usage, Vectors
from penstock.upstream.reasons import reason_of
from penstock.upstream.refusal import UNREADABLE, said, translated
from penstock.upstream.usage import AnthropicUsage, counted, estimated

REASONS: dict[str, FinishReason] = {
    "max_tokens": "length", "model_context_window_exceeded": "length", "tool_use": "tool_calls", "refusal": "content_filter",
    "guardrail_intervened": "content_filter", "content_filtered": "content_filter",
    "malformed_model_output": "error", "malformed_tool_use": "error",
}  # fmt: skip


class Block(Struct):
    """A block of content, or the start of one, or a piece of one."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    id: str | None = None
    name: str | None = None
    input: object = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class Body(Struct):
    """A whole message, or the one that opens a stream."""

    content: list[Block] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: AnthropicUsage | None = None


class Chunk(Body):
    """An event of a stream, or a whole message."""

    type: str = ""
    index: int = 0
    message: Body | None = None
    content_block: Block | None = None
    delta: Block | None = None
    error: object = None


_decode = msgspec.json.Decoder(Chunk).decode


class AnthropicReader:
    """One answer. Plain pieces of text that came together go on together."""

    def __init__(self, upstream: str, request: Request) -> None:
        self.done = False
        self._upstream = upstream
        self._request = request
        self._said: AnthropicUsage | None = None
        self._final = False  # the usage is that of the whole answer
        self._reason: FinishReason | None = None
        self._calls: dict[int, int] = {}  # by block: the number of its tool call
        self._bare: set[int] = set()  # calls without a word of arguments so far
        self._texts: list[str] = []
        self._pieces = self._chars = self._reasoning = 0

    @property
    def started(self) -> bool:
        return bool(self._pieces) or self._said is not None

    def read(self, events: Iterable[bytes]) -> list[Delta | Vectors]:
        try:
            return self.take([_decode(event) for event in events])
        except UNREADABLE as error:
            raise UpstreamFailed(f"the upstream {self._upstream!r} sent what is no event: {error}") from None

    def take(self, chunks: Iterable[Chunk]) -> list[Delta | Vectors]:
        """The same for events that were decoded already."""
        deltas: list[Delta | Vectors] = []
        for chunk in chunks:
            if chunk.type == "content_block_delta" and chunk.delta is not None and chunk.delta.type == "text_delta":
                self._texts.append(chunk.delta.text)
                continue
            self._flush(deltas)
            self._take(chunk, deltas)
        self._flush(deltas)
        return deltas

    def end(self) -> Iterator[Delta | Finish]:
        if self._reason is None:
            raise UpstreamFailed(f"the upstream {self._upstream!r} broke off its answer")
        yield Finish(reason=self._reason, usage=self.usage())

    def usage(self) -> Usage:
        """The prompt is known from the start; an answer that was cut is counted by what came."""
        usage = self._said.usage() if self._said is not None else None
        guess = estimated(self._request, counted(self._pieces, self._chars), reasoning=self._reasoning)
        if usage is None or self._final:
            return usage or guess
        guessed = max(guess.completion_tokens, usage.completion_tokens)
        return msgspec.structs.replace(usage, completion_tokens=guessed, reasoning_tokens=guess.reasoning_tokens, estimated=True)

    def _take(self, chunk: Chunk, deltas: list[Delta | Vectors]) -> None:
        if chunk.type == "content_block_delta" and chunk.delta is not None:
            deltas += self._piece(chunk.index, chunk.delta)
        elif chunk.type == "content_block_start" and chunk.content_block is not None:
            deltas += self._block(chunk.index, chunk.content_block)
        elif chunk.type == "content_block_stop" and chunk.index in self._bare:
            deltas.append(self._call(chunk.index, "{}"))
        elif chunk.type == "message_start" and chunk.message is not None:
            self._said = chunk.message.usage
        elif chunk.type == "message_delta":
            self._told(chunk.usage)
            if chunk.delta is not None and chunk.delta.stop_reason is not None:
                deltas.append(self._ended(chunk.delta.stop_reason, chunk.delta.stop_sequence))
        elif chunk.type == "message_stop":
            self.done = True
        elif chunk.type == "message":
            self._whole(chunk, deltas)
        elif chunk.type == "error":
            error = said(chunk.error)
            raise translated(self._upstream, error.status, error)

    def _whole(self, body: Body, deltas: list[Delta | Vectors]) -> None:
        self.done = True
        self._told(body.usage)
        for index, block in enumerate(body.content):
            deltas += self._block(index, block)
            if block.type == "tool_use":
                deltas.append(self._call(index, msgspec.json.encode(block.input or {}).decode()))
        deltas.append(self._ended(body.stop_reason or "end_turn", body.stop_sequence))

    def _block(self, index: int, block: Block) -> list[Delta]:
        """The start of a block; a whole one has its text here."""
        if block.type == "tool_use":
            self._calls[index] = len(self._calls)
            self._bare.add(index)
            piece = ToolCallPiece(index=self._calls[index], id=block.id, name=block.name)
            return [Delta(tool_calls=(piece,))]
        return self._piece(index, block)

    def _piece(self, index: int, piece: Block) -> list[Delta]:
        if piece.partial_json:
            return [self._call(index, piece.partial_json)]
        if not piece.text and not piece.thinking:
            return []
        self._count(piece.text or piece.thinking, is_reasoning=not piece.text)
        return [Delta(text=piece.text, reasoning=piece.thinking)]

    def _call(self, index: int, arguments: str) -> Delta:
        self._bare.discard(index)
        self._count(arguments, is_reasoning=False)
        return Delta(tool_calls=(ToolCallPiece(index=self._calls.get(index, 0), arguments=arguments),))

    def _ended(self, reason: str, sequence: str | None) -> Delta:
        self._reason = reason_of(self._upstream, reason, REASONS)
        return Delta(finish_reason=self._reason, stop_reason=sequence)

    def _told(self, usage: AnthropicUsage | None) -> None:
        """What a later word leaves out stays as it was."""
        if usage is None:
            return
        self._final = True
        told = {name: value for name, value in msgspec.structs.asdict(usage).items() if value is not None}
        self._said = msgspec.structs.replace(self._said or AnthropicUsage(), **told)

    def _count(self, text: str, *, is_reasoning: bool) -> None:
        self._pieces += 1
        self._chars += len(text)
        self._reasoning += is_reasoning

    def _flush(self, deltas: list[Delta | Vectors]) -> None:
        if texts := self._texts:
            text = "".join(texts)
            self._pieces += len(texts)
            self._chars += len(text)
            deltas.append(Delta(text=text, num_pieces=len(texts)))
            self._texts = []
