"""API keys: made, kept as hashes, found again in constant time.

A key's token is `sk-ps-<id>-<secret>`, 32 random bytes of secret. It is shown once, when it is made; the database keeps
HMAC-SHA256(server secret, token), so that neither the database alone nor the secret alone lets anybody in. A rotated key keeps
its id, and its former token for as long as was asked. A row is never deleted: a server that once had a key stays closed.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.core.errors import ConfigError, DatabaseDown, InvalidRequest, Unauthorized, closest
from penstock.core.types import Limits, Principal
from penstock.meter.database import Database, Row

log = logging.getLogger(__name__)

PREFIX = "sk-ps-"
TOKEN = re.compile(r"sk-ps-([a-z2-7]{12})-[A-Za-z0-9_-]{43}", re.ASCII)
MAX_TOKEN_CHARS = 256  # more is no key, and is not hashed
MAX_NAME_CHARS = 128
MAX_BUDGET_USD = 9_000_000  # in billionths of a dollar it is still a whole number that every store counts exactly
MAX_COUNT = 10**15  # of a limit: every store counts so far exactly
MAX_PRIORITY = 10**6
MIN_SECRET_CHARS = 16
NOBODY = b"\0" * 32  # the hash of no token

SCHEMA = """CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL, former_hash TEXT, former_until DOUBLE PRECISION,
    created_at DOUBLE PRECISION NOT NULL, expires_at DOUBLE PRECISION, revoked_at DOUBLE PRECISION,
    scope TEXT NOT NULL, version BIGINT NOT NULL)"""
COLUMNS = "id, name, hash, former_hash, former_until, created_at, expires_at, revoked_at, scope"


class KeyScope(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a key reaches and how far: kept as JSON. None: all."""

    models: tuple[str, ...] | None = None
    routes: tuple[str, ...] | None = None  # path prefixes
    admin: bool = False
    tenant: str = ""  # "": one of its own
    priority: int = 0
    limits: Limits = Limits()


class Key(Struct, frozen=True, kw_only=True):
    """A key as it is listed. Times are unix seconds. The hashes are of no use without the server's secret."""

    id: str
    name: str
    created_at: float
    expires_at: float | None = None  # None: never
    revoked_at: float | None = None
    scope: KeyScope = KeyScope()
    digest: bytes = NOBODY
    former_digest: bytes = NOBODY  # of the token before the last rotation
    former_until: float = 0.0

    @property
    def admin(self) -> bool:
        return self.scope.admin

    @property
    def principal(self) -> Principal:
        """On whose behalf its requests run."""
        scope = self.scope
        return Principal(
            key_id=self.id,
            name=self.name,
            tenant=scope.tenant or self.id,
            models=scope.models,
            routes=scope.routes,
            admin=scope.admin,
            priority=scope.priority,
            limits=scope.limits,
        )

    def state(self, now: float) -> str:
        """ "active", "expired" or "revoked" at the unix time `now`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class Keys:
    """The table of keys. Its methods block: they are for the command line and for worker threads. All raise DatabaseDown."""

    def __init__(self, database: Database, secret: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self.secret = secret
        self._database = database
        self._clock = clock
        self._created = False

    def create(self, name: str, scope: KeyScope = KeyScope(), *, expires_at: float | None = None) -> tuple[Key, str]:  # noqa: B008
        """A new key and its token, which nothing can show again. Raises InvalidRequest for a scope that makes no sense."""
        check(name, scope)
        if expires_at is not None and expires_at <= self._clock():
            raise InvalidRequest("a key cannot expire in the past", hint="give a time that is still to come")
        id = base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]
        token = _token(id)
        key = Key(id=id, name=name, created_at=self._clock(), expires_at=expires_at, scope=scope, digest=digest(self.secret, token))
        written = (id, name, key.digest.hex(), None, None, key.created_at, expires_at, None, msgspec.json.encode(scope).decode())
        self._change(f"INSERT INTO keys ({COLUMNS}, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", written)
        return key, token

    def list(self) -> tuple[Key, ...]:
        """Every key that was ever made, oldest first."""
        self._ensure()
        return tuple(map(_key, self._database.query(f"SELECT {COLUMNS} FROM keys ORDER BY created_at, id")))

    def revoke(self, id: str) -> Key:
        """End a key for good; again changes nothing. Raises InvalidRequest for an id that is none."""
        self.get(id)
        self._change("UPDATE keys SET revoked_at = COALESCE(revoked_at, ?), version = ? WHERE id = ?", (self._clock(),), (id,))
        return self.get(id)

    def rotate(self, id: str, grace_s: float = 0.0) -> tuple[Key, str]:
        """A new token for a key; the one before goes on for `grace_s` seconds. Raises InvalidRequest for a key that is over."""
        key = self.get(id)
        if (state := key.state(self._clock())) != "active":
            raise InvalidRequest(f"the key {id} is {state} and gets no new token", hint="create another key")
        token = _token(id)
        values = (key.digest.hex(), self._clock() + grace_s, digest(self.secret, token).hex())
        # The hash that was read is part of the condition: of two rotations at a time one fails, and neither token is lost unseen.
        changed = self._change(
            "UPDATE keys SET former_hash = ?, former_until = ?, hash = ?, version = ? WHERE id = ? AND hash = ? AND revoked_at IS NULL",
            values,
            (id, key.digest.hex()),
        )
        if not changed:
            raise InvalidRequest(f"the key {id} was changed at the same time", hint="look at it and try again")
        return self.get(id), token

    def get(self, id: str) -> Key:
        """One key. Raises InvalidRequest, with the closest id."""
        self._ensure()
        if rows := self._database.query(f"SELECT {COLUMNS} FROM keys WHERE id = ?", (id,)):
            return _key(rows[0])
        known = [row[0] for row in self._database.query("SELECT id FROM keys")]
        near = closest(id, known)
        raise InvalidRequest(f"there is no key {id[:40]!r}", hint=f"did you mean {near!r}?" if near else "`penstock keys list` shows them")

    def version(self) -> int:
        """A number that grows with every change; 0: there has never been a key."""
        self._ensure()
        return int(self._database.query("SELECT COALESCE(SUM(version), 0) FROM keys")[0][0])

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _change(self, sql: str, before: Sequence[str | float | None], after: Sequence[str] = ()) -> int:
        """Run `sql`, whose values are `before`, the next version of a row, `after`."""
        self._ensure()
        with self._database.transaction():
            following = int(self._database.query("SELECT COALESCE(MAX(version), 0) + 1 FROM keys")[0][0])
            return self._database.execute(sql, (*before, following, *after))

    def _ensure(self) -> None:
        if not self._created:
            self._database.create(SCHEMA)
            self._created = True


class KeyRing:
    """All keys in memory, as they were at most `refresh_s` seconds ago, so that a request waits for no database.

    While the database cannot be reached the keys last known go on; what was revoked meanwhile is noticed when it is back.
    """

    def __init__(self, keys: Keys, refresh_s: float, *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._refresh_s = refresh_s
        self._clock = clock
        self._by_id: dict[str, tuple[Key, Principal]] = {}
        self._version = -1
        self._had_keys = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load the keys and keep them fresh from a thread. Blocks for the first load. Raises DatabaseDown."""
        self.refresh()
        self._thread = threading.Thread(target=self._keep_fresh, name="penstock-keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def secret(self) -> bytes:
        """The server's, from which other secrets are derived."""
        return self._keys.secret

    @property
    def empty(self) -> bool:
        """Whether there has never been a key. A database that loses its keys does not open the server."""
        return not self._had_keys

    def refresh(self) -> None:
        """Take over what has changed. Blocks. Raises DatabaseDown."""
        version = self._keys.version()
        if version != self._version:
            self._by_id = {key.id: (key, key.principal) for key in self._keys.list()}
            self._version = version
            self._had_keys = self._had_keys or bool(self._by_id)

    def find(self, token: str) -> Principal:
        """Whose token this is. Raises Unauthorized, in the same words and time for every token that is none."""
        given = digest(self._keys.secret, token[:MAX_TOKEN_CHARS])
        matched = TOKEN.fullmatch(token)
        found = self._by_id.get(matched[1]) if matched else None
        key = found[0] if found else None
        current = hmac.compare_digest(given, key.digest if key else NOBODY)
        former = hmac.compare_digest(given, key.former_digest if key else NOBODY)
        now = self._clock()
        if found is None or key is None or not (current or (former and now < key.former_until)):
            raise Unauthorized("the API key is not known", hint="check that it was copied whole; `penstock keys list` shows the keys")
        return self._alive(found, now)

    def digest_of(self, id: str) -> bytes | None:
        """The hash of a key that goes on, for sessions that must end with it; None for one that is over or unknown."""
        found = self._by_id.get(id)
        return found[0].digest if found and found[0].state(self._clock()) == "active" else None

    def principal_of(self, id: str) -> Principal:
        """On whose behalf the key with this id acts. Raises Unauthorized for one that is over or unknown."""
        found = self._by_id.get(id)
        if found is None:
            raise Unauthorized("the API key is not known")
        return self._alive(found, self._clock())

    def _alive(self, found: tuple[Key, Principal], now: float) -> Principal:
        key, principal = found
        limited = key.revoked_at is not None or key.expires_at is not None
        if limited and (state := key.state(now)) != "active":
            raise Unauthorized(f"the API key {key.id} is {state}", hint="ask for a new one: `penstock keys create NAME`")
        return principal

    def _keep_fresh(self) -> None:
        down = False
        while not self._closed.wait(self._refresh_s):
            try:
                self.refresh()
                down = False
            except DatabaseDown as error:
                if not down:
                    log.warning("keys are as last known: %s", error)
                down = True
            except Exception:
                log.exception("keys could not be read")


def read_secret(given: str, data_dir: Path) -> bytes:
    """The server's secret: `keys.secret` where it is set, else the one in the data folder, made when it is first needed.

    Raises ConfigError where it is too short, or where others may read its file.
    """
    if given:
        if len(given) < MIN_SECRET_CHARS:
            raise ConfigError(
                f"keys.secret has {len(given)} characters; the least is {MIN_SECRET_CHARS}", hint="openssl rand -hex 32 makes one"
            )
        return given.encode()
    path = data_dir.expanduser() / "secret"
    try:
        if not path.exists():
            _make_secret(path)
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read {path}, which hashes the keys", hint=f"chmod 600 {path}")
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"cannot keep a secret in {path}: {error.strerror}", hint="set keys.secret or server.data_dir") from None
    if len(secret) < MIN_SECRET_CHARS:
        raise ConfigError(f"{path} has {len(secret)} characters; the least is {MIN_SECRET_CHARS}", hint="every key is lost with its secret")
    return secret


def _make_secret(path: Path) -> None:
    """Of two processes that make one at a time the first wins, and none ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"secret-{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def digest(secret: bytes, token: str) -> bytes:
    """What is kept of a token: 32 bytes."""
    return hmac.digest(secret, token.encode("utf-8", errors="replace"), "sha256")


def derived(secret: bytes, purpose: str) -> bytes:
    """A secret of its own for another purpose, so that nothing signed for one passes for the other."""
    return hmac.digest(secret, f"penstock {purpose}".encode(), "sha256")


def check(name: str, scope: KeyScope) -> None:
    """Raises InvalidRequest for a name or a scope that makes no sense."""
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise InvalidRequest(f"a key's name has 1 to {MAX_NAME_CHARS} printable characters, got {name[:40]!r}")
    for route in scope.routes or ():
        if not route.startswith("/"):
            raise InvalidRequest(f"a route is a path such as /v1/embeddings, got {route[:80]!r}")
    if "" in (scope.models or ()):
        raise InvalidRequest("a model's name is empty", hint="leave it out for all models")
    if abs(scope.priority) > MAX_PRIORITY:
        raise InvalidRequest(f"priority is from -{MAX_PRIORITY:,} to {MAX_PRIORITY:,}, got {scope.priority}")
    _check_limits(scope.limits)


def _check_limits(limits: Limits) -> None:
    if limits.budget_action == "warn" and not limits.has_budget:
        raise InvalidRequest("a key without a budget has none to warn of", hint="add --budget-day or --budget-month")
    for field in ("requests_per_minute", "tokens_per_minute", "concurrent_requests"):
        value = getattr(limits, field)
        if value is not None and value < 1:
            raise InvalidRequest(f"{field} is at least 1, got {value}", hint="leave it out for no limit")
        if value is not None and value > MAX_COUNT:
            raise InvalidRequest(f"{field} is at most {MAX_COUNT:,}, got {value}", hint="leave it out for no limit")
    for field in ("budget_day_usd", "budget_month_usd"):
        budget: Decimal | None = getattr(limits, field)
        if budget is not None and not (budget.is_finite() and 0 <= budget <= MAX_BUDGET_USD):
            raise InvalidRequest(f"{field} is from 0 to {MAX_BUDGET_USD:,} dollars, got {budget}")


def _token(id: str) -> str:
    return f"{PREFIX}{id}-{secrets.token_urlsafe(32)}"


def _key(row: Row) -> Key:
    id, name, hash_, former_hash, former_until, created_at, expires_at, revoked_at, scope = row
    return Key(
        id=id,
        name=name,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        scope=msgspec.json.decode(scope, type=KeyScope),
        digest=bytes.fromhex(hash_),
        former_digest=bytes.fromhex(former_hash) if former_hash else NOBODY,
        former_until=former_until or 0.0,
    )
