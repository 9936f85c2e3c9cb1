"""What attempts cost: price lists for API models, the machine's hourly price for engines of our own.

For a route, in this order: a price of the user's own file; for an engine of our own its share of the machine; the vendor's list.
Nothing found: unknown, and that it stays. All arithmetic is exact, except that an engine's seconds are counted in nanoseconds and
their price is rounded to 10⁻¹⁸ dollars.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from msgspec import Struct

from penstock.core.config import PriceSettings, UpstreamSettings
from penstock.core.errors import ConfigError
from penstock.core.types import EngineUse, Price, Route, Usage
from penstock.meter.book import MILLION, Entry, PriceFile, PriceList, read_prices, shipped_lists

SMALLEST_USD = Decimal("1e-18")
HOUR_NS = 3600 * 10**9


class Tier(Struct, frozen=True):
    """What holds for prompts longer than `above_prompt_tokens`."""

    above_prompt_tokens: int
    price: Price
    source: str


class MachinePrice(Struct, frozen=True):
    """The machine's price, in equal parts over its engines; of each part a request pays the share of time that it used.

    Over all requests of an engine the shares add up to the time that it was busy, so what they pay and the idle time are the bill.
    """

    usd_per_hour: Decimal
    engines: int
    kv_share: float

    @property
    def engine_usd_per_hour(self) -> Decimal:
        return self.usd_per_hour / self.engines

    def cost(self, use: EngineUse) -> Decimal:
        """(1 − kv_share) · (prefill + decode) + kv_share · kv, in hours, at the engine's part of the price."""
        return self._seconds((1 - self.kv_share) * (use.prefill_s + use.decode_s) + self.kv_share * use.kv_s)

    def worst(self, deadline_s: float) -> Decimal:
        """All of the engine for as long as a request may take."""
        return self._seconds(deadline_s)

    def _seconds(self, used_s: float) -> Decimal:
        return (self.usd_per_hour * round(used_s * 10**9) / (HOUR_NS * self.engines)).quantize(SMALLEST_USD)


class PriceBook:
    """A `Pricing`. `upstreams` are those of others, `engines` our own; `deadline_s` bounds what a request can take of an engine."""

    def __init__(
        self,
        *,
        own: PriceFile,
        lists: Sequence[PriceList],
        upstreams: Mapping[str, UpstreamSettings],
        engines: Mapping[str, MachinePrice | None],
        deadline_s: float,
        today: Callable[[], dt.date],
    ) -> None:
        self._own = own
        self._lists = lists
        self._upstreams = upstreams
        self._engines = engines
        self._deadline_s = deadline_s
        self._today = today
        self._found: dict[Route, tuple[Tier, ...]] = {}
        self._found_on = today()

    def cost(self, route: Route, usage: Usage, use: EngineUse | None) -> Decimal | None:
        tiers = self.tiers(route)
        if tiers:
            reached = _reached(tiers, usage.prompt_tokens)
            return _cost(reached[-1].price, usage) if reached else None
        machine = self._engines.get(route.upstream)
        return None if machine is None or use is None else machine.cost(use)

    def worst(self, route: Route, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        """For an engine of our own: all of it until the deadline, for nothing else is certain."""
        tiers = self.tiers(route)
        if tiers:
            costs = [_worst(tier.price, prompt_tokens, completion_tokens) for tier in _reached(tiers, prompt_tokens)]
            return max(costs) if costs and not tiers[0].above_prompt_tokens else None
        machine = self._engines.get(route.upstream)
        return None if machine is None else machine.worst(self._deadline_s)

    def machine(self, upstream: str) -> MachinePrice | None:
        """The price of one of our own engines, where it has one."""
        return self._engines.get(upstream)

    def tiers(self, route: Route) -> tuple[Tier, ...]:
        """The prices per token that hold for `route` today, the one for the shortest prompts first; empty: none is known."""
        today = self._today()
        if today != self._found_on:
            self._found.clear()
            self._found_on = today
        if (tiers := self._found.get(route)) is None:
            tiers = self._found[route] = self._find(route)
        return tiers

    def _find(self, route: Route) -> tuple[Tier, ...]:
        settings = self._upstreams.get(route.upstream)
        names = {route.model, there(settings, route.model)}
        for entries, source in self._places(route.upstream, settings):
            for wanted in (names, {"*"}):
                fitting = [entry for entry in entries if wanted.intersection(entry.models) and entry.since <= self._found_on]
                if fitting:
                    return tuple(_tiers(fitting, source))
        return ()

    def _places(self, upstream: str, settings: UpstreamSettings | None) -> Iterator[tuple[Sequence[Entry], str]]:
        """Where to look, in order."""
        yield [entry for entry in self._own.prices if entry.upstream == upstream], "prices.file"
        yield [entry for entry in self._own.prices if not entry.upstream], "prices.file"
        if settings is not None:
            for book in (*self._own.lists, *self._lists):
                if book.serves(settings):
                    yield book.prices, f"{book.source}, {book.as_of}"


def make_pricing(
    settings: PriceSettings,
    engines: Sequence[str],
    upstreams: Sequence[UpstreamSettings] = (),
    *,
    deadline_s: float = 600.0,
    today: Callable[[], dt.date] | None = None,
) -> PriceBook:
    """The price book of a server. `engines` names the upstreams that are engines of our own. Raises ConfigError."""
    price = settings.machine_usd_per_hour
    if price is not None and not (price.is_finite() and price >= 0):
        raise ConfigError(f"prices.machine_usd_per_hour must be at least 0, got {price}")
    machine = None if price is None else MachinePrice(price, max(len(engines), 1), settings.kv_share)
    return PriceBook(
        own=read_prices(Path(settings.file).expanduser()) if settings.file else PriceFile(),
        lists=shipped_lists(),
        upstreams={upstream.name: upstream for upstream in upstreams},
        engines=dict.fromkeys(engines, machine),
        deadline_s=deadline_s,
        today=today or _today,
    )


def there(settings: UpstreamSettings | None, model: str) -> str:
    """The upstream's own name of a model that is served as `model`."""
    return settings.models.get(model, model) if settings is not None and isinstance(settings.models, dict) else model


def _tiers(entries: Sequence[Entry], source: str) -> Iterator[Tier]:
    """For each length of prompts the latest entry."""
    latest = {entry.above_prompt_tokens: entry for entry in sorted(entries, key=lambda entry: entry.since)}
    return (Tier(above, _price(latest[above]), source) for above in sorted(latest))


def _price(entry: Entry) -> Price:
    rates = (entry.prompt, entry.completion, entry.cached, entry.cache_write, entry.reasoning)
    prompt, completion, cached, cache_write, reasoning = (None if rate is None else rate / MILLION for rate in rates)
    return Price(
        prompt=prompt or Decimal(0), completion=completion or Decimal(0), cached=cached, cache_write=cache_write,
        reasoning=reasoning, request=entry.request,
    )  # fmt: skip


def _reached(tiers: Sequence[Tier], prompt_tokens: int) -> Sequence[Tier]:
    """Those that a prompt is long enough for; the last one holds."""
    return [tier for tier in tiers if prompt_tokens > tier.above_prompt_tokens or not tier.above_prompt_tokens]


def _cost(price: Price, usage: Usage) -> Decimal:
    plain = max(usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens, 0)
    said = max(usage.completion_tokens - usage.reasoning_tokens, 0)
    cost = price.request + plain * price.prompt + said * price.completion
    if usage.cached_tokens:
        cost += usage.cached_tokens * _or(price.cached, price.prompt)
    if usage.cache_write_tokens:
        cost += usage.cache_write_tokens * _or(price.cache_write, price.prompt)
    if usage.reasoning_tokens:
        cost += usage.reasoning_tokens * _or(price.reasoning, price.completion)
    return cost


def _worst(price: Price, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """Every token at the dearest rate of its kind."""
    prompt = max(price.prompt, _or(price.cached, price.prompt), _or(price.cache_write, price.prompt))
    completion = max(price.completion, _or(price.reasoning, price.completion))
    return price.request + prompt_tokens * prompt + completion_tokens * completion


def _or(rate: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if rate is None else rate


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()
