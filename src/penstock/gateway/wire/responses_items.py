"""The output of a response as it grows: deltas become items, and each item begins, gets pieces and ends.

A message, or a stretch of reasoning, ends when something else begins. Calls may be written at the same time: they all end
with the response.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from penstock.core.types import Delta, ToolCallPiece
from penstock.gateway.wire.logprobs import ChatToken, chat_logprobs
from penstock.gateway.wire.responses_answer import CallOutput, MessageOutput, Output, OutputText, ReasoningOutput, ReasoningText

Kind = Literal["message", "reasoning", "function_call"]
PREFIXES: dict[Kind, str] = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


class Item:
    """One output item under way."""

    def __init__(self, kind: Kind, index: int, of: str) -> None:
        self.kind = kind
        self.index = index
        self.id = f"{PREFIXES[kind]}_{of}_{index}"
        self.name = ""
        self.call_id = ""
        self.pieces: list[str] = []
        self.logprobs: list[ChatToken] = []

    @property
    def text(self) -> str:
        """What it says, thinks or passes on as arguments."""
        return "".join(self.pieces)

    def output(self, status: str, *, empty: bool = False) -> Output:
        """The item as it is sent; `empty`: as it began."""
        if self.kind == "function_call":
            arguments = "" if empty else self.text
            return CallOutput(id=self.id, status=status, call_id=self.call_id, name=self.name, arguments=arguments)
        if self.kind == "reasoning":
            return ReasoningOutput(id=self.id, status=status, content=() if empty else (ReasoningText(text=self.text),))
        return MessageOutput(id=self.id, status=status, content=() if empty else (OutputText(text=self.text, logprobs=self.logprobs),))


class Step(Struct, frozen=True):
    """Something that happened to an item."""

    what: Literal["begins", "grows", "ends"]
    item: Item
    text: str = ""
    logprobs: tuple[ChatToken, ...] = ()


class Items:
    """All items of a response. `of` is what their ids are made from."""

    def __init__(self, of: str) -> None:
        self.items: list[Item] = []
        self._of = of
        self._open: Item | None = None  # a message or reasoning that may still grow
        self._calls: dict[int, Item] = {}

    @property
    def open_message(self) -> Item | None:
        """The message that grows now."""
        return self._open if self._open is not None and self._open.kind == "message" else None

    def take(self, delta: Delta) -> Iterator[Step]:
        """What a delta does to them."""
        if delta.reasoning:
            yield from self._grow("reasoning", delta.reasoning)
        if delta.text or delta.logprobs:
            scores = () if delta.logprobs is None else chat_logprobs(delta.logprobs, as_ids=False).content
            yield from self._grow("message", delta.text, scores)
        for piece in delta.tool_calls:
            yield from self._call(piece)

    def end(self) -> Iterator[Step]:
        """What is still open ends. A response without any output has one empty message."""
        if not self.items:
            yield from self._grow("message", "")
        yield from self._close()
        for item in self._calls.values():
            yield Step("ends", item)

    def outputs(self, status: str) -> list[Output]:
        """All of them, at the end; the last one may be incomplete."""
        last = len(self.items) - 1
        return [item.output(status if item.index == last else "completed") for item in self.items]

    def _grow(self, kind: Kind, text: str, logprobs: tuple[ChatToken, ...] = ()) -> Iterator[Step]:
        if self._open is None or self._open.kind != kind:
            yield from self._close()
            self._open = self._begin(kind)
            yield Step("begins", self._open)
        self._open.pieces.append(text)
        self._open.logprobs += logprobs
        if text or logprobs:
            yield Step("grows", self._open, text, logprobs)

    def _call(self, piece: ToolCallPiece) -> Iterator[Step]:
        item = self._calls.get(piece.index)
        if item is None:
            yield from self._close()
            item = self._calls[piece.index] = self._begin("function_call")
            item.call_id = piece.id or f"call_{piece.index}"
            item.name = piece.name or ""
            yield Step("begins", item)
        if piece.arguments:
            item.pieces.append(piece.arguments)
            yield Step("grows", item, piece.arguments)

    def _begin(self, kind: Kind) -> Item:
        item = Item(kind, len(self.items), self._of)
        self.items.append(item)
        return item

    def _close(self) -> Iterator[Step]:
        if self._open is not None:
            yield Step("ends", self._open)
            self._open = None
