"""What the page is told about requests and upstreams."""

from __future__ import annotations

from msgspec import Struct

from penstock.core.types import CacheState, Failure, Finish, Health, Principal
from penstock.gateway.wire.explain import Explained, dollars, explained
from penstock.trace.judgements import became
from penstock.trace.window import Kept, Open


class Row(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request in the list. `number` None: under way. Dollars are plain decimals as text; absent: unknown."""

    number: int | None
    id: str
    arrived_at: float  # unix seconds
    model: str  # as asked for
    key: str
    outcome: str  # "open", "ok", "failed" or "left"
    route: str | None = None
    code: str | None = None  # of the error
    cache: CacheState = "off"
    became: tuple[str, ...] = ()  # by guards, cache and router: see `trace.judgements`
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    cost_usd: str | None = None


class Details(Struct, frozen=True, kw_only=True):
    """One request as far as it is remembered. `prompt` and `answer` are kept only where the settings say so."""

    row: Row
    penstock: Explained
    reason: str
    failure: Failure | None
    prompt: str | None
    answer: str | None


class UpstreamRow(Struct, frozen=True, kw_only=True):
    """One upstream, and whether it can answer now."""

    name: str
    health: Health
    models: tuple[str, ...]
    embeds: tuple[str, ...]  # of the models, those that make vectors
    own: bool  # an engine of our own, which the charts know


def row_of(kept: Kept) -> Row:
    ended, finish = kept.ended, kept.ended.finish
    route = ended.decision.route if ended.decision else None
    return Row(
        number=kept.number,
        id=ended.request.id,
        arrived_at=ended.arrived_at,
        model=ended.request.model,
        key=_key(ended.request.principal),
        outcome=_outcome(finish),
        route=str(route) if route else None,
        code=finish.failure.code if finish.failure else None,
        cache=ended.cache,
        became=became(ended.judgements),
        prompt_tokens=finish.usage.prompt_tokens,
        cached_tokens=finish.usage.cached_tokens,
        output_tokens=finish.usage.completion_tokens,
        ttft_s=finish.timings.ttft_s,
        tpot_s=finish.timings.tpot_s,
        e2e_s=finish.timings.e2e_s,
        cost_usd=dollars(finish.cost_usd),
    )


def open_row(known: Open) -> Row:
    request = known.request
    return Row(
        number=None,
        id=request.id,
        arrived_at=known.arrived_at,
        model=request.model,
        key=_key(request.principal),
        outcome="open",
        output_tokens=known.output_tokens,
        ttft_s=known.ttft_s,
    )


def details_of(kept: Kept) -> Details:
    ended = kept.ended
    return Details(
        row=row_of(kept),
        penstock=explained(ended.request.id, ended),
        reason=ended.finish.reason,
        failure=ended.finish.failure,
        prompt=kept.prompt,
        answer=ended.text,
    )


def _key(principal: Principal) -> str:
    return principal.name or principal.key_id


def _outcome(finish: Finish) -> str:
    if finish.failure is not None or finish.reason == "error":
        return "failed"
    return "left" if finish.reason == "abort" else "ok"
