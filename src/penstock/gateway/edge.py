"""The outermost layer: a request id on every answer, every error in its dialect's shape, one line in the log.

What the pipeline has answered has its line from there, and one from here only where there is something else to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.core.errors import Bug, NotReady, PenstockError
from penstock.core.types import Failure, Principal
from penstock.gateway.connection import EVENTS, Reply
from penstock.gateway.wire.call import SANE_ID
from penstock.gateway.wire.errors import Failed, retry_after
from penstock.gateway.wire.shapes import shape_of

log = logging.getLogger(__name__)

OK = 200
CLIENT_LEFT = 499  # nginx's name for it; only the log ever sees it
LAST_WORDS_S = 1.0  # how long a client may take to read an error


class Exchange:
    """One request and its response: the id it goes by, on whose behalf, what has been sent, and what the access log will say.

    The client's own `x-request-id` is kept where it is short and plain. `headers` go with whatever answer comes, an error
    too. `last_words` ends a stream that was begun and cannot go on.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.received: dict[bytes, bytes] = dict(scope["headers"])  # of several with one name the last
        given = self.received.get(b"x-request-id", b"").decode("latin-1")
        self.named = SANE_ID.fullmatch(given) is not None
        self.request_id = given if self.named else fresh_id(96)
        self.principal = Principal()
        self.check: Callable[[], object] = Principal  # asks again whether this may go on; raises Unauthorized, Forbidden
        self.errors = shape_of(scope["path"])
        self.headers: list[tuple[bytes, bytes]] = []
        self.last_words: Callable[[Failure, str], bytes] = self.errors.event
        self.fields: dict[str, object] = {}
        self.told = False  # whether the pipeline's log has a line of its own for this
        self.status: int | None = None
        self._streams = False
        self._send = send

    async def send(self, message: Message) -> None:
        """ASGI's `send`, adding the id and the headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ids = [(name, self.request_id.encode()) for name in self.errors.id_headers]
            headers = [*message.get("headers", ()), *ids, *self.headers]
            self._streams = (b"content-type", EVENTS.encode()) in headers
            message = {**message, "headers": headers}
        await self._send(message)

    async def fail(self, failure: Failure) -> None:
        """Tell the client, in whatever way is still open."""
        self.fields["code"] = failure.code
        reply, wait_s = Reply(self.send), retry_after(failure)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                if self.status is None:
                    body = self.errors.body(failure, self.request_id)
                    await reply.json(body, status=failure.status, headers=(("retry-after", wait_s),) if wait_s else ())
                elif self._streams:
                    await reply.write(self.last_words(failure, self.request_id), last=True)


def fresh_id(bits: int) -> str:
    """An identifier that nothing else has; it is no secret."""
    return f"{random.getrandbits(bits):0{bits // 4}x}"


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
            if not (exchange.told and exchange.status == OK) or "labels" in exchange.fields:
                _log(scope, exchange, time.perf_counter() - started_s)

    async def _guarded(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        try:
            try:
                await self._app(scope, receive, exchange.send)
            except Failed as error:
                await exchange.fail(error.failure)
            except PenstockError as error:
                await exchange.fail(error.failure())
            except HTTPException as error:
                exchange.headers += [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
                await exchange.fail(_no_route(scope, error.status_code))
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


def _no_route(scope: Scope, status: int) -> Failure:
    """404 and 405."""
    code, what = ("method_not_allowed", "does not go with") if status == 405 else ("not_found", "is unknown, asked by")
    return Failure(status=status, code=code, message=f"{scope['path'][:200]} {what} {scope['method']}")


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
