"""What a server's error means to us: its status and body, in any of the shapes seen in the wild, as one of our errors."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping

import msgspec

from penstock.core.errors import (
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PenstockError,
    TooLarge,
    UpstreamFailed,
)

TOO_LONG = (
    "context_length_exceeded", "exceed_context_size", "maximum context length", "context length", "available context size",
    "context window", "prompt is too long", "input is too long",
)  # fmt: skip
OUT_OF_CREDIT = ("insufficient_quota", "credit balance", "insufficient balance", "insufficient_balance")
STATUSES = {
    "invalid_request_error": 400, "badrequesterror": 400, "context_length_exceeded": 400, "validationexception": 400,
    "authentication_error": 401, "invalid_api_key": 401, "permission_error": 403, "not_found_error": 404, "model_not_found": 404,
    "request_too_large": 413, "rate_limit_error": 429, "rate_limit_exceeded": 429, "overloaded": 429, "throttlingexception": 429,
    "resource_exhausted": 429, "serviceunavailableexception": 503, "unavailable": 503, "invalid_argument": 400,
    "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)  # no JSON, no UTF-8, a number of thousands of digits, too deep
MAX_SAID = 400  # characters of a server's message that are passed on
MAX_WAIT_S = 86_400.0  # who says to wait longer, or for ever, is asked again after a day


class Said(msgspec.Struct):
    """What an error body says. `kind` is its type and code, in lower case."""

    message: str = ""
    kind: str = ""
    param: str | None = None
    status: int = 500  # where no HTTP status says so: by its code or its type


def read_error(body: bytes) -> Said:
    """The error in `body`: OpenAI's, Anthropic's, Google's and AWS's shapes, FastAPI's `detail`, a bare text."""
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return Said(body.decode(errors="replace").strip()[:MAX_SAID])
    return said(document)


def said(document: object) -> Said:
    """The same for a body that was decoded already, or for its `error`."""
    if isinstance(document, list) and document:  # Google wraps a streamed error in a list
        document = document[0]
    if not isinstance(document, dict):
        return Said(str(document)[:MAX_SAID])
    inner = document.get("error")
    if isinstance(inner, dict):
        return said(inner)
    found = inner or document.get("message") or document.get("Message") or document.get("detail") or document.get("error_type") or ""
    message = found if isinstance(found, str) else msgspec.json.encode(found).decode()
    kind = " ".join(str(document[name]) for name in ("type", "code", "status", "error_type", "__type") if document.get(name))
    param, code = document.get("param"), document.get("code")
    return Said(
        message[:MAX_SAID],
        kind.lower(),
        param if isinstance(param, str) else None,
        code if isinstance(code, int) and 400 <= code < 600 else status_of(kind),
    )


def status_of(kind: str) -> int:
    """The HTTP status that goes with an error's type or code; 500 for one that is unknown."""
    return next((STATUSES[word] for word in kind.lower().split() if word in STATUSES), 500)


def refused(upstream: str, status: int, headers: Mapping[str, str], body: bytes) -> PenstockError:
    """An HTTP error as ours. `upstream` is its name in the config."""
    return translated(upstream, status, read_error(body), retry_after(headers))


def translated(upstream: str, status: int, error: Said, retry_after_s: float | None = None) -> PenstockError:
    """What `status` and the words with it mean. What our own account or config causes is no fault of the client's."""
    what = f"the upstream {upstream!r}"
    words = f"{error.message} {error.kind}".lower()
    told = f": {error.message}" if error.message else ""
    if status == 402 or (status in (400, 403, 429) and any(hint in words for hint in OUT_OF_CREDIT)):
        return UpstreamFailed(f"{what} says that our account has no credit left", hint="tell whoever runs this server")
    if status in (401, 403, 407):
        return UpstreamFailed(f"{what} refuses our credentials ({status})", hint="tell whoever runs this server to check its api_key")
    if status in (429, 529):
        return Overloaded(f"{what} is overloaded, or we ask too much of it{told}", retry_after_s=retry_after_s)
    if status in (400, 413, 422) and any(hint in words for hint in TOO_LONG):
        return ContextTooLong(f"{what} refused{told}", param=error.param)
    if status == 413:
        return TooLarge(f"{what} refused the request's size{told}")
    if status == 404 and "model" in words:
        return ModelNotFound(f"{what} has no such model{told}", hint="compare `models` of the upstream with what it serves")
    if status in (400, 422):
        return InvalidRequest(f"{what} refused{told or ' the request'}", param=error.param)
    if status < 500 and status not in (408, 409, 425):
        return UpstreamFailed(f"{what} answered {status}{told}", hint="check the url of the upstream")
    return UpstreamFailed(f"{what} answered {status}", retry_after_s=retry_after_s)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, of retry-after-ms or Retry-After (a number or a date), a day at most."""
    try:
        if "retry-after-ms" in headers:
            return _wait_s(float(headers["retry-after-ms"]) / 1000)
        text = headers.get("retry-after")
        return None if text is None else _wait_s(float(text))
    except ValueError:
        pass
    try:
        return _wait_s(email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, OverflowError):
        return None


def _wait_s(told: float) -> float:
    return min(max(0.0, told), MAX_WAIT_S)  # also of "nan" and "inf"
