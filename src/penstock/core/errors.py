"""One tree of errors. Each class fixes status, code and whether a retry may help.

    PenstockError
    ├── InvalidRequest      400 invalid_request_error   what the client sent cannot be served, now or later
    │   ├── ContextTooLong  400 context_length_exceeded
    │   └── Unsupported     400 unsupported_parameter   a field that Penstock knows and does not honour
    ├── Unauthorized        401 invalid_api_key         no key, or one that is unknown, expired or revoked
    ├── Forbidden           403 permission_denied       the key does not reach so far
    │   └── PriceUnknown    403 price_unknown           a key with a budget asks for what has no price
    ├── ModelNotFound       404 model_not_found
    ├── TooLarge            413 request_too_large
    ├── RateLimited         429 rate_limit_exceeded     a limit of the key; with a time to wait
    │   └── BudgetExceeded  429 insufficient_quota      the key's budget is spent
    ├── Overloaded          429 overloaded              retryable, with a time to wait
    ├── UpstreamFailed      502 upstream_error          retryable: the upstream broke off, or said what makes no sense
    ├── EngineDied          503 engine_died             retryable
    ├── NotReady            503 not_ready               retryable
    ├── LimitsDown          503 limits_unavailable      the store of the counters cannot be reached, and the policy is to refuse
    ├── DatabaseDown        503 database_unavailable    keys and ledger cannot be reached
    ├── DeadlineExceeded    504 deadline_exceeded       retryable
    ├── UserError           a user's mistake at the command line or in a config file (exit code 2)
    │   ├── ConfigError
    │   ├── LoadError       a model that is not there or cannot be read
    │   ├── MissingExtra    a feature whose packages are not installed
    │   └── MemoryPlanError too little memory, with the nearest values that fit
    └── Bug                 500 an impossible state: ours to mend

A message says what, the limit and the value given; the hint says what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import ClassVar

from penstock.core.types import Failure


class PenstockError(Exception):
    """Root of every error that Penstock raises on purpose."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def failure(self) -> Failure:
        """The error as plain data, for a client."""
        return Failure(
            status=self.status, code=self.code, message=self.message, hint=self.hint, param=self.param,
            retryable=self.retryable, retry_after_s=self.retry_after_s,
        )  # fmt: skip


class InvalidRequest(PenstockError):
    status = 400
    code = "invalid_request_error"


class ContextTooLong(InvalidRequest):
    code = "context_length_exceeded"


class Unsupported(InvalidRequest):
    code = "unsupported_parameter"


class Unauthorized(PenstockError):
    status = 401
    code = "invalid_api_key"


class Forbidden(PenstockError):
    status = 403
    code = "permission_denied"


class PriceUnknown(Forbidden):
    code = "price_unknown"


class ModelNotFound(PenstockError):
    status = 404
    code = "model_not_found"


class TooLarge(PenstockError):
    status = 413
    code = "request_too_large"


class RateLimited(PenstockError):
    status = 429
    code = "rate_limit_exceeded"


class BudgetExceeded(RateLimited):
    code = "insufficient_quota"


class Overloaded(PenstockError):
    status = 429
    code = "overloaded"
    retryable = True


class UpstreamFailed(PenstockError):
    status = 502
    code = "upstream_error"
    retryable = True


class EngineDied(PenstockError):
    status = 503
    code = "engine_died"
    retryable = True


class NotReady(PenstockError):
    status = 503
    code = "not_ready"
    retryable = True


class LimitsDown(PenstockError):
    status = 503
    code = "limits_unavailable"


class DatabaseDown(PenstockError):
    status = 503
    code = "database_unavailable"
    retryable = True


class DeadlineExceeded(PenstockError):
    status = 504
    code = "deadline_exceeded"
    retryable = True


class UserError(PenstockError):
    """A mistake that its user can mend: printed without a traceback, exit code 2."""

    status = 400
    code = "user_error"


class ConfigError(UserError):
    code = "config_error"


class LoadError(UserError):
    code = "load_error"


class MissingExtra(UserError):
    code = "missing_extra"


class MemoryPlanError(UserError):
    code = "memory_plan_error"


class Bug(PenstockError):
    """An impossible state. Never caught to carry on; reported as it is."""


def missing_extra(what: str, extra: str) -> MissingExtra:
    """`what` needs packages that are not installed; `extra` brings them."""
    return MissingExtra(f"{what} needs packages that are not installed", hint=f"pip install 'penstock[{extra}]'")


def from_failure(failure: Failure) -> PenstockError:
    """The error that a failure was made of, by its code."""
    known = {kind.code: kind for kind in _kinds(PenstockError)}
    kind = known.get(failure.code, PenstockError)
    return kind(failure.message, hint=failure.hint, param=failure.param, retry_after_s=failure.retry_after_s)


def _kinds(root: type[PenstockError]) -> Iterator[type[PenstockError]]:
    for kind in root.__subclasses__():
        yield from _kinds(kind)
    yield root


def closest(given: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `given`, for "did you mean", or None when nothing is near."""
    matches = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
