"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`; and what every dialect's shape has to say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from penstock.core.types import Failure

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Error(Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Struct, frozen=True):
    error: Error


class Failed(Exception):
    """A request ended in a failure that is already plain data."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class ErrorShape:
    """How one dialect words an error: `body(failure, request_id)` as a whole answer, `event(failure, request_id)` within a stream.

    `id_headers` carry the request id on every answer of the dialect's paths.
    """

    body: Callable[[Failure, str], bytes]
    event: Callable[[Failure, str], bytes]
    id_headers: tuple[bytes, ...] = (b"x-request-id",)


def error_body(failure: Failure, request_id: str = "") -> bytes:
    """The error as JSON. The hint is part of the message: clients show nothing else."""
    kind = _TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "server_error")
    return msgspec.json.encode(ErrorBody(Error(full_message(failure), kind, failure.param, failure.code)))


def error_event(failure: Failure, request_id: str = "") -> bytes:
    """The same as a server-sent event."""
    return b"data: " + error_body(failure) + b"\n\n"


def full_message(failure: Failure) -> str:
    """What and what to do about it, in one text."""
    return f"{failure.message} ({failure.hint})" if failure.hint else failure.message


def retry_after(failure: Failure) -> str | None:
    """Whole seconds for the Retry-After header, or None where a retry would not help."""
    helps = failure.retryable or failure.retry_after_s is not None
    return str(max(1, math.ceil(failure.retry_after_s or 1))) if helps else None


OPENAI = ErrorShape(error_body, error_event)
