"""Events into bytes: `Whole` gathers them for one JSON answer, `Chunks` writes each as a server-sent event."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct, structs

from penstock.core.errors import Bug, NotReady
from penstock.core.types import Delta, Finish, Usage
from penstock.gateway.wire.answer import Prompt, Shape, joined, total, usage_body
from penstock.gateway.wire.call import Call
from penstock.gateway.wire.errors import Failed
from penstock.gateway.wire.logprobs import width

DONE = b"data: [DONE]\n\n"


class Whole:
    """One call's events, put together at the end."""

    def __init__(self, call: Call, shape: Shape) -> None:
        self._call = call
        self._shape = shape
        self._prompts = [Prompt() for _ in call.requests]
        self._pieces: list[list[Delta]] = [[] for _ in range(call.num_choices)]
        self._usages = [Usage() for _ in call.requests]

    def prompt(self, place: int, prompt: Prompt) -> None:
        """Take in what the prompt of request `place` became."""
        self._prompts[place] = prompt

    def add(self, place: int, event: Delta | Finish) -> None:
        """Take in an event of request `place`. Raises Failed where it ended in a failure."""
        first = place * self._call.n
        if isinstance(event, Delta):
            self._pieces[first + event.index].append(event)
            return
        check_finish(event)
        self._usages[place] = event.usage
        for pieces in self._pieces[first : first + self._call.n]:
            if not pieces or pieces[-1].finish_reason is None:
                pieces.append(Delta(finish_reason=event.reason))

    def body(self) -> bytes:
        """The answer as JSON; every request has ended."""
        return msgspec.json.encode(self._shape.answer(self._prompts, [joined(pieces) for pieces in self._pieces], total(self._usages)))


class _Choice(Struct):
    """How far a streamed choice has got. `offset`: characters of its tokens so far."""

    opened: bool = False
    ended: bool = False
    offset: int = 0


class Chunks:
    """One call's events as server-sent events. What never changes in a chunk is encoded once."""

    def __init__(self, call: Call, shape: Shape) -> None:
        self._call = call
        self._shape = shape
        self._head = _head(call, shape)
        self._prompts = [Prompt() for _ in call.requests]
        self._choices = [_Choice() for _ in range(call.num_choices)]
        self._usages = [Usage() for _ in call.requests]

    def prompt(self, place: int, prompt: Prompt) -> None:
        """Take in what the prompt of request `place` became; it goes out with the first chunks."""
        self._prompts[place] = prompt
        info = prompt.info
        self._usages[place] = Usage(prompt_tokens=len(info.token_ids), cached_tokens=info.num_cached_tokens)

    def add(self, place: int, event: Delta | Finish) -> bytes:
        """What an event of request `place` makes of the stream; maybe nothing. Raises Failed where it ended in a failure."""
        if isinstance(event, Delta):
            return self._delta(place, event)
        check_finish(event)
        first = place * self._call.n
        missing = [index for index in range(self._call.n) if not self._choices[first + index].ended]
        ends = [self._delta(place, Delta(index=index, finish_reason=event.reason)) for index in missing]
        self._usages[place] = event.usage
        return b"".join(ends)

    def end(self) -> bytes:
        """The last chunks; every request has ended."""
        if not self._call.include_usage:
            return DONE
        return self._head + b'],"usage":' + self._usage() + b"}\n\n" + DONE

    def _delta(self, place: int, delta: Delta) -> bytes:
        index = place * self._call.n + delta.index
        choice = self._choices[index]
        opening = b"" if choice.opened else self._opening(place, index)
        choice.ended = delta.finish_reason is not None
        self._count(place, delta)
        if not delta.text and not delta.token_ids and delta.finish_reason is None:
            return opening
        piece = self._shape.piece(index, delta, choice.offset)
        choice.offset += width(delta.logprobs or (), as_ids=self._call.tokens_as_ids)
        return opening + self._chunk(piece)

    def _opening(self, place: int, index: int) -> bytes:
        prompt = self._prompts[place]
        self._choices[index].opened = True
        self._choices[index].offset = self._shape.offset(prompt)
        opening = self._shape.opening(index, prompt)
        return b"" if opening is None else self._chunk(opening, self._shape.opening_extra(prompt))

    def _chunk(self, choice: object, extra: bytes = b"") -> bytes:
        return b"".join((self._head, msgspec.json.encode(choice), b"]", extra, self._tail(), b"}\n\n"))

    def _tail(self) -> bytes:
        if self._call.continuous_usage:
            return b',"usage":' + self._usage()
        return b',"usage":null' if self._call.include_usage else b""

    def _usage(self) -> bytes:
        return msgspec.json.encode(usage_body(total(self._usages)))

    def _count(self, place: int, delta: Delta) -> None:
        if self._call.continuous_usage:
            usage = self._usages[place]
            self._usages[place] = structs.replace(usage, completion_tokens=usage.completion_tokens + len(delta.token_ids))


def check_finish(finish: Finish) -> None:
    """Raises Failed unless the request ended as an answer does."""
    if finish.failure is not None:
        raise Failed(finish.failure)
    if finish.reason == "abort":
        raise Failed(NotReady("the answer was broken off", hint="try again").failure())
    if finish.reason == "error":
        raise Failed(Bug("the answer ended in an error that says nothing").failure())


def error_event(body: bytes) -> bytes:
    """An error within a stream, where the status has long been sent."""
    return b"data: " + body + b"\n\n"


def _head(call: Call, shape: Shape) -> bytes:
    """A chunk up to its choices."""
    envelope: Mapping[str, object] = {"id": call.id, "object": shape.chunk, "created": call.created, "model": call.model}
    return b"data: " + msgspec.json.encode(envelope)[:-1] + b',"choices":['
