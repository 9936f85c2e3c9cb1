"""What tells one wire format from another: the fields of its body, what they become, and the writers of its answers.

A route is made of a dialect alone (`generate.Generate`). To add one: a struct of fields (`BodyFields`), its table of known and
refused fields, a function that makes a `Call` of them, and two writers. Errors are shaped by path (`wire.shapes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from penstock.core.types import Delta, Failure, Finish, Vectors
from penstock.gateway.wire.answer import Prompt
from penstock.gateway.wire.call import BodyFields, Call, Context
from penstock.gateway.wire.explain import Told
from penstock.gateway.wire.fields import RECORDED, Neutral

F = TypeVar("F", bound=BodyFields)
C = TypeVar("C", bound=Call)

Answered = Delta | Vectors | Finish


class WholeWriter(Protocol):
    """Gathers one call's events for one JSON answer."""

    def prompt(self, place: int, prompt: Prompt) -> None:
        """Take in what the prompt of request `place` became."""

    def add(self, place: int, event: Answered) -> None:
        """Take in an event of request `place`. Raises Failed where it ended in a failure (`collect.check_finish`)."""

    def body(self, told: Told) -> bytes:
        """The answer as JSON; every request has ended."""


class StreamWriter(Protocol):
    """Writes one call's events as server-sent events, one for each delta that has something to say."""

    def prompt(self, place: int, prompt: Prompt) -> None:
        """Take in what the prompt of request `place` became."""

    def add(self, place: int, event: Answered) -> bytes:
        """What an event of request `place` makes of the stream; maybe nothing. Raises Failed where it ended in a failure."""

    def end(self, told: Told) -> bytes:
        """The last events; every request has ended. `told.comment` says the cost."""

    def failed(self, failure: Failure, request_id: str) -> bytes:
        """The last events of a stream that was begun and cannot go on."""


@dataclass(frozen=True)
class Dialect(Generic[F, C]):
    """One wire format. `recorded` fields go to the access log and have no other effect. `stream` None: answers come whole."""

    fields: type[F]
    neutral: Mapping[str, Neutral]
    make_call: Callable[[F, Context], C]
    whole: Callable[[C], WholeWriter]
    stream: Callable[[C], StreamWriter] | None
    recorded: tuple[str, ...] = RECORDED
