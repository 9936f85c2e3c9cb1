"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math

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


def error_body(failure: Failure) -> bytes:
    """The error as JSON. The hint is part of the message: clients show nothing else."""
    message = f"{failure.message} ({failure.hint})" if failure.hint else failure.message
    kind = _TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "server_error")
    return msgspec.json.encode(ErrorBody(Error(message, kind, failure.param, failure.code)))


def retry_after(failure: Failure) -> str | None:
    """Whole seconds for the Retry-After header, or None where a retry would not help."""
    helps = failure.retryable or failure.retry_after_s is not None
    return str(max(1, math.ceil(failure.retry_after_s or 1))) if helps else None
