"""`penstock keys create|list|revoke|rotate`: API keys, in the database of the ledger."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from penstock.cli.settings import read
from penstock.core.errors import UserError
from penstock.core.settings import Settings
from penstock.core.types import Limits
from penstock.meter.database import open_database
from penstock.meter.keys import Key, Keys, KeyScope, read_secret

MAX_S = 36_500 * 86_400  # a hundred years
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
HEADERS = ("ID", "NAME", "STATE", "EXPIRES", "REACHES", "LIMITS")


def run(arguments: argparse.Namespace) -> int:
    keys = _open(read(arguments, []))
    try:
        {"create": _create, "list": _list, "revoke": _revoke, "rotate": _rotate}[arguments.action](keys, arguments)
    finally:
        keys.close()
    return 0


def _open(settings: Settings) -> Keys:
    url, data_dir = settings.ledger.database, Path(settings.server.data_dir)
    if url == "memory":
        raise UserError("ledger.database is memory: a key would be gone at once", hint='set it to "sqlite" or to a postgresql:// address')
    return Keys(open_database(url, data_dir), read_secret(settings.keys.secret, data_dir))


def _create(keys: Keys, arguments: argparse.Namespace) -> None:
    limits = Limits(
        requests_per_minute=arguments.requests_per_minute,
        tokens_per_minute=arguments.tokens_per_minute,
        concurrent_requests=arguments.concurrent,
        budget_day_usd=_dollars(arguments.budget_day, "--budget-day"),
        budget_month_usd=_dollars(arguments.budget_month, "--budget-month"),
        budget_action="warn" if arguments.warn else "refuse",
    )
    scope = KeyScope(
        models=_names(arguments.model),
        routes=_names(arguments.route),
        admin=arguments.admin,
        tenant=arguments.tenant,
        priority=arguments.priority,
        limits=limits,
    )
    expires_at = None if arguments.expires is None else time.time() + seconds(arguments.expires, "--expires")
    first = not keys.list()
    key, token = keys.create(arguments.name, scope, expires_at=expires_at)
    _show(token, f"the key {key.id} ({key.name}); this is the only time that it is shown")
    if first:
        print("from now on the server answers nobody without a key", file=sys.stderr)
        if not key.admin:
            print("/metrics and the page need an admin's: penstock keys create NAME --admin", file=sys.stderr)


def _list(keys: Keys, arguments: argparse.Namespace) -> None:
    found = keys.list()
    if arguments.json:
        print(msgspec.json.encode([_plain(key) for key in found]).decode())
        return
    rows = [HEADERS, *(_row(key) for key in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADERS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _revoke(keys: Keys, arguments: argparse.Namespace) -> None:
    key = keys.revoke(arguments.id)
    print(f"the key {key.id} ({key.name}) is revoked", file=sys.stderr)


def _rotate(keys: Keys, arguments: argparse.Namespace) -> None:
    key, token = keys.rotate(arguments.id, seconds(arguments.grace, "--grace"))
    goes_on = "ends now" if key.former_until <= time.time() else f"goes on until {_when(key.former_until)}"
    _show(token, f"the new token of {key.id} ({key.name}), shown this once; the former one {goes_on}")


def _show(token: str, what: str) -> None:
    """The token alone goes to standard output, so that it can be piped to where it is kept."""
    print(what, file=sys.stderr, flush=True)
    print(token, flush=True)


def seconds(text: str, flag: str) -> float:
    """Of "90s", "15m", "12h", "30d"; plain digits are seconds. Raises UserError."""
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip())
    if match is None or int(match[1]) * UNITS_S[match[2] or "s"] > MAX_S:
        raise UserError(f"{flag} is a time such as 90s, 15m, 12h or 30d, {MAX_S // 86_400}d at most, got {text!r}")
    return float(int(match[1]) * UNITS_S[match[2] or "s"])


def _dollars(text: str | None, flag: str) -> Decimal | None:
    if text is None:
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        raise UserError(f"{flag} is an amount of dollars such as 2.50, got {text!r}") from None


def _names(given: Sequence[str] | None) -> tuple[str, ...] | None:
    return tuple(given) if given else None


def _plain(key: Key) -> dict[str, object]:
    """Without the hashes: nobody needs them outside the database."""
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(time.time()),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        **msgspec.to_builtins(key.principal),
        "admin": key.admin,
    }


def _row(key: Key) -> tuple[str, ...]:
    scope, limits = key.scope, msgspec.to_builtins(key.scope.limits)
    reach = ["admin"] if scope.admin else []
    reach += [f"{what} {', '.join(names)}" for what, names in (("models", scope.models), ("routes", scope.routes)) if names is not None]
    expires = "never" if key.expires_at is None else _when(key.expires_at)
    bounds = ", ".join(f"{name}={value}" for name, value in limits.items())
    return key.id, key.name, key.state(time.time()), expires, "; ".join(reach) or "all models", bounds or "none"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
