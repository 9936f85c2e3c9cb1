"""Logs, one JSON object a line. What clients send and what models answer goes into no log unless it was asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from penstock.core.types import Request
from penstock.trace.events import Accepted, Ended, Rerouted, Streamed, TraceEvent

log = logging.getLogger(__name__)


class JSONFormatter(logging.Formatter):
    """A log record as one line of JSON: time (UTC), level, logger, message, then `extra={"fields": {...}}`."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = msgspec.json.Encoder()
        self._second = -1
        self._prefix = ""  # the time of the last line, down to that second: most lines share one

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        return self.line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields).decode()

    def line(self, created: float, level: str, logger: str, message: str, fields: Mapping[str, object]) -> bytes:
        """One line, without its end. `created` in unix seconds."""
        return self._encoder.encode({"time": self._time(created), "level": level, "logger": logger, "message": message, **fields})

    def _time(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._prefix}.{int((created - second) * 1000):03d}+00:00"


class JSONLines:
    """Writes records straight to a file descriptor, as `JSONFormatter` does, for those who write very many of them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._formatter = JSONFormatter()

    def info(self, message: str, fields: dict[str, object]) -> None:
        line = self._formatter.line(time.time(), "info", log.name, message, fields)
        with contextlib.suppress(OSError):  # a full disk, or nobody who reads: no reason to fail a request
            os.write(self._descriptor, line + b"\n")


class RequestLog:
    """An observer of the trace: one line for each request that ends, one for each route that failed it.

    With `log_text` a line has what was asked and, where the trace keeps texts, what was answered. The lines of requests go to
    `lines` where that is given, else to the logger like all others.
    """

    def __init__(self, *, log_text: bool = False, lines: JSONLines | None = None) -> None:
        self._log_text = log_text
        self._lines = lines

    def __call__(self, event: TraceEvent) -> None:
        match event:
            case Ended():
                fields = {**_ended(event), **(_said(event) if self._log_text else {})}
                if self._lines is not None:
                    self._lines.info(f"request {event.request.id} ended: {event.finish.reason}", fields)
                else:
                    log.info("request %s ended: %s", event.request.id, event.finish.reason, extra={"fields": fields})
            case Rerouted():
                fields = {"request_id": event.request.id, "route": str(event.route), "code": event.failure.code}
                log.warning("request %s goes to the next route", event.request.id, extra={"fields": fields})
            case Accepted() | Streamed():
                pass


def _ended(event: Ended) -> dict[str, object]:
    finish = event.finish
    return {
        "request_id": event.request.id,
        "model": event.request.model,
        "route": str(event.decision.route) if event.decision else None,
        "key": event.request.principal.key_id or None,
        "finish_reason": finish.reason,
        "status": finish.failure.status if finish.failure else 200,
        "code": finish.failure.code if finish.failure else None,
        "cache": event.cache,
        "attempts": len(event.attempts),
        "cost_usd": None if finish.cost_usd is None else f"{finish.cost_usd:f}",
        "usage": finish.usage,
        "timings": finish.timings,
    }


def _said(event: Ended) -> dict[str, object]:
    return {"prompt": _prompt(event.shown), "answer": event.text}


def _prompt(request: Request) -> object:
    if request.messages is not None:
        return request.messages
    return next((asked for asked in (request.prompt, request.prompt_token_ids, request.inputs) if asked is not None), None)
