"""Counters in Redis, exact over any number of gateways: each operation is one Lua script, which Redis runs as one step.

Times are Redis' own, so the gateways' clocks need not agree. All keys of an account share a hash tag and so a cluster's node.
Give Redis `appendonly yes`, or a restart forgets what was counted since its last snapshot (budgets are then raised to what the
ledger knows; the current minute's counts are lost).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from penstock.core.errors import ConfigError, LimitsDown, missing_extra
from penstock.meter.counters.account import NANO, Claim, Refusal, needs_hold

CONNECTIONS = 32
PREFIX = "penstock"


class RedisCounters:
    """Connects when first used. `clock` (unix seconds) replaces Redis' own, for tests.

    Raises MissingExtra without the package, ConfigError for an address that it does not understand.
    """

    def __init__(
        self, url: str, hold_s: float, *, timeout_s: float = 0.5, prefix: str = PREFIX, clock: Callable[[], float] | None = None
    ) -> None:
        try:
            from redis import asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError:
            raise missing_extra("counting limits in Redis", "redis") from None
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),  # sent again, a request would count twice
            )
        except ValueError as error:
            raise ConfigError(f"limits.counters is no address of a Redis: {error}", hint="redis://HOST:PORT/NUMBER") from None
        self._redis = redis.Redis.from_pool(pool)
        self._errors = (RedisError, OSError)
        self._hold_s = str(hold_s)
        self._prefix = prefix
        self._clock = clock
        prelude = _script("prelude")
        self._admit, self._reserve, self._settle = (
            self._redis.register_script(f"{prelude}\n{_script(name)}") for name in ("admit", "reserve", "settle")
        )

    async def admit(self, claim: Claim) -> Refusal | None:
        limits = claim.limits
        args = (
            self._hold_s,
            _number(limits.requests_per_minute),
            _number(limits.concurrent_requests),
            _flag(needs_hold(limits)),
            _flag(claim.enforced),
        )
        return _refusal(await self._run(self._admit, claim, args))

    async def reserve(self, claim: Claim) -> Refusal | None:
        limits, seed = claim.limits, claim.seed
        day, month = (None if usd is None else int(usd.scaleb(NANO)) for usd in (limits.budget_day_usd, limits.budget_month_usd))
        args = (
            self._hold_s,
            str(claim.tokens),
            str(claim.nano),
            _number(limits.tokens_per_minute),
            _number(day),
            _number(month),
            _flag(limits.budget_action == "warn"),
            _number(seed.day if seed else None),
            _number(seed.month if seed else None),
            _flag(claim.enforced),
        )
        return _refusal(await self._run(self._reserve, claim, args))

    async def settle(self, claim: Claim) -> None:
        await self._run(self._settle, claim, (str(claim.tokens), str(claim.nano), _flag(claim.unheld)))

    async def close(self) -> None:
        await self._redis.aclose()

    async def _run(self, script: Any, claim: Claim, args: Sequence[str]) -> Any:
        tagged = f"{self._prefix}:{{{claim.account}}}"
        keys = [tagged, f"{tagged}:held", f"{tagged}:live", f"{tagged}:late", f"{tagged}:charged"]
        now = "" if self._clock is None else repr(self._clock())
        try:
            return await script(keys=keys, args=[now, claim.hold, *args])
        except self._errors as error:
            await self._redis.connection_pool.disconnect(inuse_connections=False)  # after a restart none of them is any good
            raise LimitsDown(f"Redis cannot be reached: {error}", hint="try again in a moment") from error


def _script(name: str) -> str:
    return files("penstock.meter.counters").joinpath(f"{name}.lua").read_text(encoding="utf-8")


def _refusal(answer: list[Any] | None) -> Refusal | None:
    if not answer:
        return None
    control, counted, wait_s, warned = answer
    return Refusal(
        control=control.decode(),
        counted=int(counted),
        retry_after_s=float(wait_s) if wait_s else None,
        warned=bool(warned),
    )


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _flag(value: bool) -> str:
    return "1" if value else "0"
