"""Who may ask: the layer between the edge and the routes. What is not allowed here is refused.

Once there is a key every route but /health needs one; only `FOR_ANY_KEY` go without an admin's. A server without keys is open
on loopback alone, and there only to requests that name it as itself: a page elsewhere can make a browser send requests to a
local port, also under a name of its own (DNS rebinding), but not with our `Host` and `Origin`.

The page's login turns an admin's key into a session: a cookie that no script can read and no other site can send, signed with
a secret derived from the server's. It ends after `SESSION_S`, and with its key: revoked, rotated or expired.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Callable
from functools import partial

import msgspec
from msgspec import Struct
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.core.config import ServerSettings
from penstock.core.errors import Forbidden, InvalidRequest, Unauthorized
from penstock.core.types import Principal
from penstock.gateway.connection import Reply, read_body
from penstock.gateway.edge import exchange_of
from penstock.meter.keys import KeyRing, derived

FOR_ALL = "/health"
FOR_ANY_KEY = ("/v1", "/tokenize", "/detokenize", "/version", "/ready", "/openapi.json")
LOGIN, LOGOUT, PAGE = "/login", "/logout", "/"
COOKIE = "penstock_session"
SESSION_S = 12 * 3600
LOGIN_BYTES = 4096
LOGIN_S = 10.0
SAFE = ("GET", "HEAD")
ANYBODY = Principal()
NO_KEYS_HINT = "make the first key on the server: `penstock keys create NAME --admin`; or let all in with keys.open = true"


class Asking(Struct):
    """What the headers say of who asks."""

    bearer: str = ""  # the Authorization header, or x-api-key
    cookie: str = ""
    host: str = ""
    origin: str = ""
    fetch_site: str = ""
    fetch_mode: str = ""


class LoginFields(Struct, forbid_unknown_fields=True):
    """The body of a login."""

    key: str


class Auth:
    """Decides for each request. `login_page` is the HTML that a browser gets instead of an error at "/"."""

    def __init__(
        self,
        ring: KeyRing,
        settings: ServerSettings,
        *,
        is_open: bool = False,
        login_page: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.login_page = login_page
        self._ring = ring
        self._secret = derived(ring.secret, "session")
        self._host = settings.host
        self._is_loopback = is_loopback(settings.host.lower())
        self._is_open = is_open
        self._clock = clock

    @property
    def needs_key(self) -> bool:
        """Whether there are keys, so that every request needs one."""
        return not self._ring.empty

    def describe(self) -> str:
        """Who may ask, in words."""
        if self.needs_key:
            return "by API key"
        if self._is_loopback:
            return "open to this machine; `penstock keys create NAME` makes a key, and from then on every request needs one"
        return "open to all" if self._is_open else "nobody yet: `penstock keys create NAME` makes the first key"

    def principal(self, path: str, method: str, asking: Asking) -> Principal:
        """On whose behalf a request runs. Raises Unauthorized, Forbidden."""
        if self._ring.empty:
            self._check_open(asking)
            return ANYBODY
        principal = self._ring.find(asking.bearer) if asking.bearer else self._of_session(method, asking)
        check_reach(principal, path)
        return principal

    def session(self, key: str, asking: Asking) -> str:
        """A session for an admin's key. Raises Unauthorized, Forbidden, InvalidRequest."""
        if self._ring.empty:
            hint = "it is open as it is" if self._is_loopback or self._is_open else NO_KEYS_HINT
            raise InvalidRequest("the server has no keys, so there is nothing to log in with", hint=hint)
        check_same_origin(asking)
        principal = self._ring.find(key)
        if not principal.admin:
            raise Forbidden("the page needs an admin's key", hint="`penstock keys create NAME --admin` makes one")
        expires_at = str(int(self._clock()) + SESSION_S)
        return f"{principal.key_id}.{expires_at}.{self._sign(principal.key_id, expires_at)}"

    def _of_session(self, method: str, asking: Asking) -> Principal:
        if not asking.cookie:
            raise Unauthorized("no API key was sent", hint="send it as `Authorization: Bearer sk-ps-…` or `x-api-key: sk-ps-…`")
        key_id, _, rest = asking.cookie.partition(".")
        expires_at, _, signature = rest.partition(".")
        signed = self._sign(key_id, expires_at)
        genuine = signed is not None and hmac.compare_digest(signed.encode(), signature.encode())
        if not genuine or int(expires_at) <= self._clock():
            raise Unauthorized("the session is over", hint="log in again")
        if method not in SAFE and not asking.origin and not asking.fetch_site:
            raise Forbidden("a session is for the page, and no browser says that this comes from there", hint="send an API key instead")
        check_same_origin(asking)
        return self._ring.principal_of(key_id)

    def _sign(self, key_id: str, expires_at: str) -> str | None:
        """Over the key's hash, too: with another token the sessions of the former one end. None: there is no such key now."""
        digest = self._ring.digest_of(key_id)
        if digest is None:
            return None
        return hmac.digest(self._secret, f"{key_id}.{expires_at}.{digest.hex()}".encode(), "sha256").hex()

    def _check_open(self, asking: Asking) -> None:
        """Raises Unauthorized, Forbidden where a server without keys is not open to this request."""
        if not self._is_loopback and not self._is_open:
            raise Unauthorized(f"the server listens on {self._host} and has no keys", hint=NO_KEYS_HINT)
        if not self._is_open and not is_loopback(host_of(asking.host)):
            hint = "without keys the server answers to localhost alone; make a key, or set keys.open = true"
            raise Forbidden(f"the host {asking.host[:80]!r} is not this server", hint=hint)
        check_same_origin(asking)


class Authenticate:
    """The ASGI layer. Puts the principal on the exchange, and answers the login itself."""

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else FOR_ALL
        if path == FOR_ALL:
            await self._app(scope, receive, send)
            return
        exchange, asking = exchange_of(scope), asking_of(scope)
        if path in (LOGIN, LOGOUT) and scope["method"] == "POST":
            await self._session(scope, receive, send, asking)
            return
        try:
            exchange.check = partial(self._auth.principal, path, scope["method"], asking)
            exchange.principal = principal = exchange.check()
        except Unauthorized:
            if path == PAGE and scope["method"] in SAFE and self._auth.login_page is not None:
                await _html(Reply(send), self._auth.login_page)
                return
            exchange.headers.append((b"www-authenticate", b"Bearer"))
            raise
        if principal.key_id:
            exchange.fields["key"] = principal.key_id
        await self._app(scope, receive, send)

    async def _session(self, scope: Scope, receive: Receive, send: Send, asking: Asking) -> None:
        """204 with the cookie, or without it."""
        value, lasts_s = "", 0
        if scope["path"] == LOGIN:
            body = await read_body(scope, receive, max_bytes=LOGIN_BYTES, timeout_s=LOGIN_S)
            try:
                given = msgspec.json.decode(body, type=LoginFields).key
            except (msgspec.DecodeError, UnicodeDecodeError):  # its text would quote the key
                raise InvalidRequest('the body of a login is {"key": "sk-ps-…"}') from None
            value, lasts_s = self._auth.session(given, asking), SESSION_S
        else:
            check_same_origin(asking)
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = f"{COOKIE}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}"
        reply = Reply(send)
        await reply.start("application/json", status=204, headers=(("set-cookie", cookie), ("cache-control", "no-store")))
        await reply.write(b"", last=True)


def asking_of(scope: Scope) -> Asking:
    """What the headers of a request say, read once. An Authorization header goes before x-api-key."""
    asking, api_key = Asking(), ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            asking.bearer = token.strip() if kind.lower() == "bearer" else "-"  # another scheme is no key, rather than none
        elif name == b"x-api-key":
            api_key = value.decode("latin-1")
        elif name == b"host":
            asking.host = value.decode("latin-1")
        elif name == b"origin":
            asking.origin = value.decode("latin-1")
        elif name == b"cookie":
            asking.cookie = asking.cookie or _cookie(value.decode("latin-1"))
        elif name == b"sec-fetch-site":
            asking.fetch_site = value.decode("latin-1")
        elif name == b"sec-fetch-mode":
            asking.fetch_mode = value.decode("latin-1")
    asking.bearer = asking.bearer or api_key
    return asking


def check_reach(principal: Principal, path: str) -> None:
    """Raises Forbidden for a path that the key does not reach."""
    if not principal.admin and not any(_below(path, route) for route in FOR_ANY_KEY):
        raise Forbidden(f"{path[:80]} needs an admin's key", hint="the API's routes begin with /v1/")
    if principal.routes is not None and not any(_below(path, route) for route in principal.routes):
        raise Forbidden(f"the key may not call {path[:80]}", hint=f"it may call {', '.join(principal.routes) or 'nothing'}")


def check_same_origin(asking: Asking) -> None:
    """Raises Forbidden for what a page of another origin has sent. A link that was followed is no such thing: its page reads nothing."""
    foreign = asking.origin and asking.origin.partition("://")[2] != asking.host
    elsewhere = asking.fetch_site not in ("", "same-origin", "none") and asking.fetch_mode != "navigate"
    if foreign or elsewhere:
        raise Forbidden(f"a page of {(asking.origin or 'another origin')[:80]} may not ask here", hint="send an API key of this server")


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, can only be this machine: an address of the loopback, or a name that always is one."""
    if host in ("127.0.0.1", "localhost", "::1") or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(header: str) -> str:
    """The host of a Host header, without port and brackets, in small letters."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def _below(path: str, route: str) -> bool:
    return path == route or path.startswith(route.rstrip("/") + "/")


def _cookie(header: str) -> str:
    for pair in header.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


async def _html(reply: Reply, body: bytes) -> None:
    headers = (
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        ("www-authenticate", "Bearer"),
        ("x-frame-options", "DENY"),
    )
    await reply.start("text/html; charset=utf-8", status=401, headers=headers)
    await reply.write(body, last=True)
