"""Answers of `/v1/responses`: whole, and as the events of its stream."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import UNSET, structs

from penstock.core.errors import Bug
from penstock.core.types import Delta, Failure, Finish, Vectors
from penstock.gateway.wire.answer import Prompt
from penstock.gateway.wire.collect import check_finish
from penstock.gateway.wire.explain import Told
from penstock.gateway.wire.responses import ResponsesCall
from penstock.gateway.wire.responses_answer import (
    OutputText,
    ReasoningText,
    ResponseBody,
    begun,
    response_error,
    response_usage,
    status_of,
)
from penstock.gateway.wire.responses_items import Item, Items, Step

_MARK = "\0"  # where the text of an event goes
_COUNT_MARK = b"-1"  # where its number goes


class WholeResponse:
    """One response, put together at the end."""

    def __init__(self, call: ResponsesCall) -> None:
        self._call = call
        self._items = Items(call.id.removeprefix("resp_"))
        self._finish: Finish | None = None

    def prompt(self, place: int, prompt: Prompt) -> None:
        """A response shows nothing of its prompt."""

    def add(self, place: int, event: Delta | Vectors | Finish) -> None:
        """Take in an event. Raises Failed where the request ended in a failure."""
        if isinstance(event, Delta):
            _exhaust(self._items.take(event))
        else:
            self._finish = check_finish(event)

    def body(self, told: Told) -> bytes:
        """The response as JSON."""
        _exhaust(self._items.end())
        return msgspec.json.encode(ended(self._call, self._items, self._finish, told))


class ResponseEvents:
    """One response as server-sent events, numbered from 0.

    Most events are a piece of the text of one message: all but the text and the number of such an event is the same each time.
    """

    def __init__(self, call: ResponsesCall) -> None:
        self._call = call
        self._items = Items(call.id.removeprefix("resp_"))
        self._finish: Finish | None = None
        self._count = 0
        self._around: tuple[bytes, bytes, bytes] | None = None  # the number and the text of a piece of the open message
        self._text = msgspec.json.Encoder().encode

    def prompt(self, place: int, prompt: Prompt) -> None:
        """A response shows nothing of its prompt."""

    def add(self, place: int, event: Delta | Vectors | Finish) -> bytes:
        """What an event makes of the stream. Raises Failed where the request ended in a failure."""
        if not isinstance(event, Delta):
            self._finish = check_finish(event)
            return b"".join((*self._opening(), *self._written(self._items.end())))
        if self._around is not None and event.text and not (event.logprobs or event.reasoning or event.tool_calls):
            return self._piece(event.text)
        return b"".join((*self._opening(), *self._written(self._items.take(event)))) if _says(event) else b""

    def end(self, told: Told) -> bytes:
        """The whole response comes last."""
        body = ended(self._call, self._items, self._finish, told)
        return self._event(f"response.{body.status}", {"response": body}) + told.comment

    def failed(self, failure: Failure, request_id: str) -> bytes:
        """The response as far as it got, and why it got no further."""
        outputs = self._items.outputs("incomplete")
        body = structs.replace(begun(self._call), status="failed", error=response_error(failure), output=outputs)
        return self._event("response.failed", {"response": body})

    def _opening(self) -> Iterable[bytes]:
        if self._count == 0:
            response = {"response": begun(self._call)}
            yield self._event("response.created", response)
            yield self._event("response.in_progress", response)

    def _written(self, steps: Iterable[Step]) -> Iterable[bytes]:
        for step in steps:
            self._around = None
            writers = {"begins": self._begins, "grows": self._grows, "ends": self._ends}
            yield from writers[step.what](step)
        message = self._items.open_message
        if message is not None and self._around is None and self._call.request.sampling.logprobs is None:
            self._around = self._template(message)

    def _begins(self, step: Step) -> Iterable[bytes]:
        item = step.item
        yield self._event("response.output_item.added", {"output_index": item.index, "item": item.output("in_progress", empty=True)})
        if item.kind != "function_call":
            yield self._event("response.content_part.added", _at(item) | {"part": _part(item, empty=True)})

    def _grows(self, step: Step) -> Iterable[bytes]:
        item = step.item
        if item.kind == "function_call":
            place: Mapping[str, object] = {"item_id": item.id, "output_index": item.index}
            yield self._event("response.function_call_arguments.delta", {**place, "delta": step.text})
        elif item.kind == "reasoning":
            yield self._event("response.reasoning_text.delta", _at(item) | {"delta": step.text})
        else:
            yield self._event("response.output_text.delta", _at(item) | {"delta": step.text, "logprobs": step.logprobs})

    def _ends(self, step: Step) -> Iterable[bytes]:
        item = step.item
        if item.kind == "function_call":
            called = {"item_id": item.id, "output_index": item.index, "name": item.name, "arguments": item.text}
            yield self._event("response.function_call_arguments.done", called)
        else:
            text: dict[str, object] = {"text": item.text}
            if item.kind == "message":
                text["logprobs"] = item.logprobs
            yield self._event(f"response.{'output' if item.kind == 'message' else 'reasoning'}_text.done", _at(item) | text)
            yield self._event("response.content_part.done", _at(item) | {"part": _part(item)})
        yield self._event("response.output_item.done", {"output_index": item.index, "item": item.output(self._status(item))})

    def _status(self, item: Item) -> str:
        """The last item of a response that was cut is incomplete."""
        if self._finish is None or item.index < len(self._items.items) - 1:
            return "completed"
        return status_of(self._finish.reason)[0]

    def _event(self, kind: str, members: Mapping[str, object]) -> bytes:
        number, self._count = self._count, self._count + 1
        body = msgspec.json.encode({"type": kind, "sequence_number": number, **members})
        return b"".join((b"event: ", kind.encode(), b"\ndata: ", body, b"\n\n"))

    def _template(self, message: Item) -> tuple[bytes, bytes, bytes]:
        """A piece of text around its number and its text."""
        count, self._count = self._count, -1
        (event,) = self._grows(Step("grows", message, _MARK))
        self._count = count
        before, _, rest = event.partition(_COUNT_MARK)
        between, _, after = rest.rpartition(self._text(_MARK))
        return before, between, after

    def _piece(self, text: str) -> bytes:
        message = self._items.open_message
        if self._around is None or message is None:
            raise Bug("a piece of text without a message to be part of")
        message.pieces.append(text)
        before, between, after = self._around
        number, self._count = self._count, self._count + 1
        return b"".join((before, str(number).encode(), between, self._text(text), after))


def ended(call: ResponsesCall, items: Items, finish: Finish | None, told: Told) -> ResponseBody:
    """The response when it is over. Raises Bug where it is not."""
    if finish is None:
        raise Bug("a response that has not ended")
    status, incomplete = status_of(finish.reason)
    return structs.replace(
        begun(call),
        status=status,
        completed_at=int(time.time()) if status == "completed" else None,
        incomplete_details=incomplete,
        output=items.outputs(status),
        usage=response_usage(finish.usage),
        penstock=told.explained or UNSET,
    )


def _at(item: Item) -> dict[str, object]:
    return {"item_id": item.id, "output_index": item.index, "content_index": 0}


def _part(item: Item, *, empty: bool = False) -> OutputText | ReasoningText:
    text = "" if empty else item.text
    return ReasoningText(text=text) if item.kind == "reasoning" else OutputText(text=text, logprobs=() if empty else item.logprobs)


def _says(delta: Delta) -> bool:
    return bool(delta.text or delta.reasoning or delta.tool_calls or delta.logprobs)


def _exhaust(steps: Iterable[Step]) -> None:
    for _ in steps:
        pass
