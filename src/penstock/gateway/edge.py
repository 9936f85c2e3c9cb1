"""The outermost layer: a request id on every answer, every error in OpenAI's shape, one line in the access log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.core.errors import Bug, NotReady, PenstockError
from penstock.core.types import Failure
from penstock.gateway.connection import EVENTS, Reply
from penstock.gateway.wire.call import SANE_ID
from penstock.gateway.wire.collect import error_event
from penstock.gateway.wire.errors import Failed, error_body, retry_after

log = logging.getLogger(__name__)

CLIENT_LEFT = 499  # nginx's name for it; only the log ever sees it
LAST_WORDS_S = 1.0  # how long a client may take to read an error


class Exchange:
    """One request and its response: the id it goes by, what has been sent, and what the access log will say.

    The client's own `x-request-id` is kept where it is short and plain.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.named = SANE_ID.fullmatch(given) is not None
        self.request_id = given if self.named else secrets.token_hex(12)
        self.fields: dict[str, object] = {}
        self.status: int | None = None
        self._streams = False
        self._send = send

    async def send(self, message: Message) -> None:
        """ASGI's `send`, adding the id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            self._streams = (b"content-type", EVENTS.encode()) in headers
            message = {**message, "headers": headers}
        await self._send(message)

    async def fail(self, failure: Failure) -> None:
        """Tell the client, in whatever way is still open."""
        self.fields["code"] = failure.code
        reply, body, wait_s = Reply(self.send), error_body(failure), retry_after(failure)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                if self.status is None:
                    await reply.json(body, status=failure.status, headers=(("retry-after", wait_s),) if wait_s else ())
                elif self._streams:
                    await reply.write(error_event(body), last=True)


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that `Edge` put into the scope."""
    exchange = scope["state"]["exchange"]
    if not isinstance(exchange, Exchange):
        raise Bug("the scope has no exchange")
    return exchange


class Edge:
    """Nothing raises past it but a cancellation."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, send)
        scope.setdefault("state", {})["exchange"] = exchange
        started_s = time.perf_counter()
        try:
            await self._guarded(scope, receive, exchange)
        finally:
            _log(scope, exchange, time.perf_counter() - started_s)

    async def _guarded(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        try:
            try:
                await self._app(scope, receive, exchange.send)
            except Failed as error:
                await exchange.fail(error.failure)
            except PenstockError as error:
                await exchange.fail(error.failure())
            except asyncio.CancelledError:  # the server has waited long enough
                await exchange.fail(NotReady("the server is shutting down", hint="try again").failure())
                raise
            except ClientDisconnect:
                raise
            except Exception:
                log.exception("request %s met a bug", exchange.request_id)
                await exchange.fail(Bug("internal error", hint="the server's log has the details").failure())
        except ClientDisconnect:
            exchange.fields["sent"] = exchange.status
            exchange.status = CLIENT_LEFT


def _log(scope: Scope, exchange: Exchange, duration_s: float) -> None:
    fields = {
        "request_id": exchange.request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": exchange.status,
        "duration_s": round(duration_s, 6),
        **exchange.fields,
    }
    log.info("%s %s %s", scope["method"], scope["path"], exchange.status, extra={"fields": fields})
