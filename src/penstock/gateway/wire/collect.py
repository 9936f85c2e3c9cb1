"""Events into bytes: `Whole` gathers them for one JSON answer, `Chunks` writes each as a server-sent event."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct, structs

from penstock.core.errors import Bug, NotReady
from penstock.core.types import Delta, Failure, Finish, Usage, Vectors
from penstock.gateway.wire.answer import Prompt, Shape, joined, total, usage_body
from penstock.gateway.wire.call import GenerationCall
from penstock.gateway.wire.errors import Failed, error_event
from penstock.gateway.wire.explain import Told
from penstock.gateway.wire.logprobs import width

DONE = b"data: [DONE]\n\n"
_MARK = "\0"  # where the text goes


class Whole:
    """One call's events, put together at the end."""

    def __init__(self, call: GenerationCall, shape: Shape) -> None:
        self._call = call
        self._shape = shape
        self._prompts = [Prompt() for _ in call.requests]
        self._pieces: list[list[Delta]] = [[] for _ in range(call.num_choices)]
        self._usages = [Usage() for _ in call.requests]

    def prompt(self, place: int, prompt: Prompt) -> None:
        """Take in what the prompt of request `place` became."""
        self._prompts[place] = prompt

    def add(self, place: int, event: Delta | Vectors | Finish) -> None:
        """Take in an event of request `place`. Raises Failed where it ended in a failure."""
        first = place * self._call.n
        if isinstance(event, Delta):
            self._pieces[first + event.index].append(event)
            return
        finish = check_finish(event)
        self._usages[place] = finish.usage
        for pieces in self._pieces[first : first + self._call.n]:
            if not pieces or pieces[-1].finish_reason is None:
                pieces.append(Delta(finish_reason=finish.reason))

    def body(self, told: Told) -> bytes:
        """The answer as JSON; every request has ended."""
        answer = self._shape.answer(self._prompts, [joined(pieces) for pieces in self._pieces], total(self._usages))
        return msgspec.json.encode(answer if told.explained is None else structs.replace(answer, penstock=told.explained))


class _Choice(Struct):
    """How far a streamed choice has got. `offset`: characters of its tokens so far."""

    opened: bool = False
    ended: bool = False
    offset: int = 0


class Chunks:
    """One call's events as server-sent events. What never changes in a chunk is encoded once.

    Most pieces are text and nothing else: all but the text of such a chunk is the same each time.
    """

    def __init__(self, call: GenerationCall, shape: Shape) -> None:
        self._call = call
        self._shape = shape
        self._head = _head(call, shape)
        self._prompts = [Prompt() for _ in call.requests]
        self._choices = [_Choice() for _ in range(call.num_choices)]
        self._usages = [Usage() for _ in call.requests]
        self._around: list[tuple[bytes, bytes] | None] = [None] * call.num_choices  # the text of a chunk that is only text
        self._text = msgspec.json.Encoder().encode

    def prompt(self, place: int, prompt: Prompt) -> None:
        """Take in what the prompt of request `place` became; it goes out with the first chunks."""
        self._prompts[place] = prompt
        info = prompt.info
        self._usages[place] = Usage(prompt_tokens=len(info.token_ids), cached_tokens=info.num_cached_tokens)

    def add(self, place: int, event: Delta | Vectors | Finish) -> bytes:
        """What an event of request `place` makes of the stream; maybe nothing. Raises Failed where it ended in a failure."""
        if isinstance(event, Delta):
            around = self._around[place * self._call.n + event.index]
            if around is not None and event.text and _only_text(event):
                return around[0] + self._text(event.text) + around[1]
            return self._delta(place, event)
        finish = check_finish(event)
        first = place * self._call.n
        missing = [index for index in range(self._call.n) if not self._choices[first + index].ended]
        ends = [self._delta(place, Delta(index=index, finish_reason=finish.reason)) for index in missing]
        self._usages[place] = finish.usage
        return b"".join(ends)

    def end(self, told: Told) -> bytes:
        """The last chunks; every request has ended."""
        written = [self._head, b'],"usage":', self._usage(), b"}\n\n"] if self._call.include_usage else []
        if told.explained is not None:
            written += [self._head, b'],"penstock":', msgspec.json.encode(told.explained), self._tail(), b"}\n\n"]
        return b"".join((*written, told.comment, DONE))

    def failed(self, failure: Failure, request_id: str) -> bytes:
        """The last event of a stream that cannot go on."""
        return error_event(failure, request_id)

    def _delta(self, place: int, delta: Delta) -> bytes:
        index = place * self._call.n + delta.index
        choice = self._choices[index]
        opening = b"" if choice.opened else self._opening(place, index)
        choice.ended = delta.finish_reason is not None
        self._count(place, delta)
        if delta.finish_reason is None and not (delta.text or delta.token_ids or delta.tool_calls or delta.reasoning):
            return opening
        piece = self._shape.piece(index, delta, choice.offset)
        choice.offset += width(delta.logprobs or (), as_ids=self._call.tokens_as_ids)
        return opening + self._chunk(piece)

    def _opening(self, place: int, index: int) -> bytes:
        prompt = self._prompts[place]
        self._choices[index].opened = True
        self._choices[index].offset = self._shape.offset(prompt)
        if not (self._call.token_ids or self._call.continuous_usage):
            before, _, after = self._chunk(self._shape.piece(index, Delta(text=_MARK), 0)).rpartition(self._text(_MARK))
            self._around[index] = (before, after)
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
            says = delta.text or delta.reasoning or delta.tool_calls
            tokens = len(delta.token_ids) or (delta.num_pieces if says else 0)
            self._usages[place] = structs.replace(usage, completion_tokens=usage.completion_tokens + tokens)


def check_finish(finish: Finish | Vectors) -> Finish:
    """The end of a request that ended as an answer does. Raises Failed."""
    if isinstance(finish, Vectors):
        raise Bug("vectors came where text was asked for")
    if finish.failure is not None:
        raise Failed(finish.failure)
    if finish.reason == "abort":
        raise Failed(NotReady("the answer was broken off", hint="try again").failure())
    if finish.reason == "error":
        raise Failed(Bug("the answer ended in an error that says nothing").failure())
    return finish


def _only_text(delta: Delta) -> bool:
    return delta.finish_reason is None and delta.logprobs is None and not delta.tool_calls and not delta.reasoning


def _head(call: GenerationCall, shape: Shape) -> bytes:
    """A chunk up to its choices."""
    envelope: Mapping[str, object] = {"id": call.id, "object": shape.chunk, "created": call.created, "model": call.model}
    return b"data: " + msgspec.json.encode(envelope)[:-1] + b',"choices":['
