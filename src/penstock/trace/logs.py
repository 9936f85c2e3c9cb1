"""Logs, one JSON object a line. What clients send and what models answer never goes into a log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec

from penstock.trace.events import Accepted, Ended, Rerouted, Streamed, TraceEvent

log = logging.getLogger(__name__)


class JSONFormatter(logging.Formatter):
    """A log record as one line of JSON: time (UTC), level, logger, message, then `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def log_requests(event: TraceEvent) -> None:
    """An observer of the trace: one line for each request that ends, one for each route that failed it."""
    match event:
        case Ended():
            log.info("request %s ended: %s", event.request.id, event.finish.reason, extra={"fields": _ended(event)})
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
        "finish_reason": finish.reason,
        "status": finish.failure.status if finish.failure else 200,
        "code": finish.failure.code if finish.failure else None,
        "usage": msgspec.to_builtins(finish.usage),
        "timings": msgspec.to_builtins(finish.timings),
    }
