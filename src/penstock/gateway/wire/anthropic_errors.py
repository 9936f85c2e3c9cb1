"""Errors in Anthropic's shape: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import Struct, field

from penstock.core.types import Failure
from penstock.gateway.wire.errors import ErrorShape, full_message

_TYPES: Mapping[int, str] = MappingProxyType(
    {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
)


class AnthropicError(Struct, frozen=True):
    type: str
    message: str


class AnthropicErrorBody(Struct, frozen=True, kw_only=True):
    kind: str = field(name="type", default="error")
    error: AnthropicError
    request_id: str


def anthropic_error(failure: Failure, request_id: str) -> bytes:
    """The error as JSON. The hint is part of the message, and so is the field to blame: the shape has no place for it."""
    kind = _TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "api_error")
    return msgspec.json.encode(AnthropicErrorBody(error=AnthropicError(kind, full_message(failure)), request_id=request_id))


def anthropic_error_event(failure: Failure, request_id: str) -> bytes:
    """The same as a server-sent event."""
    return b"event: error\ndata: " + anthropic_error(failure, request_id) + b"\n\n"


ANTHROPIC = ErrorShape(anthropic_error, anthropic_error_event, id_headers=(b"x-request-id", b"request-id"))
