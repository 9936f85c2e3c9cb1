"""Logs, one JSON object a line. What clients send and what models answer goes into no log unless it was asked for."""

from __future__ import annotations

import logging
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
        line: dict[str, object] = {
            "time": self._time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._encoder.encode(line).decode()

    def _time(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._prefix}.{int((created - second) * 1000):03d}+00:00"


class RequestLog:
    """An observer of the trace: one line for each request that ends, one for each route that failed it.

    With `log_text` a line has what was asked and, where the trace keeps texts, what was answered.
    """

    def __init__(self, *, log_text: bool = False) -> None:
        self._log_text = log_text

    def __call__(self, event: TraceEvent) -> None:
        match event:
            case Ended():
                fields = {**_ended(event), **(_said(event) if self._log_text else {})}
                log.info("request %s ended: %s", event.request.id, event.finish.reason, extra={"fields": fields})
            case Rerouted():
                route = f"{event.route.upstream}/{event.route.model}"
                fields = {"request_id": event.request.id, "route": route, "code": event.failure.code}
                log.warning("request %s goes to the next route", event.request.id, extra={"fields": fields})
            case Accepted() | Streamed():
                pass


def _ended(event: Ended) -> dict[str, object]:
    finish = event.finish
    return {
        "request_id": event.request.id,
        "model": event.request.model,
        "route": f"{event.decision.route.upstream}/{event.decision.route.model}" if event.decision else None,
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
    return {"prompt": _prompt(event.request), "answer": event.text}


def _prompt(request: Request) -> object:
    if request.messages is not None:
        return request.messages
    return next((asked for asked in (request.prompt, request.prompt_token_ids, request.inputs) if asked is not None), None)
