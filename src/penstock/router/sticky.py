"""Conversations that stay with their model while its prefix cache is worth more than what moving saves.

A conversation is known by the digest of its tenant, its system prompt and its first user turn. Moving to a cheaper model loses
the KV (or the vendor's cached tokens) of all earlier turns; moving up is for quality and is never held back. Where prices are known,
the two ways to answer this turn are priced: the present model with the prefix cached, the other one without. Where they are
not, tokens are compared: the prefix that would be read anew, and what this turn adds.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from penstock.core.types import Request, Route, Usage
from penstock.router.policy import Asked, Choice
from penstock.router.protocol import Costs
from penstock.router.traits import prompt_tokens

MAX_CONVERSATIONS = 16_384
IDLE_S = 600.0  # API vendors forget a prefix after five to ten minutes
ANSWER_TOKENS = 256  # taken for the length of an answer that is yet to come


class _Last(Struct, frozen=True):
    """Where the last turn was answered, how many prompt tokens it had, and when (seconds, monotonic)."""

    model: str
    tokens: int
    at_s: float


class Sticky:
    """Remembers the last 16,384 conversations, each for ten minutes after its last turn."""

    def __init__(self, costs: Costs, clock: Callable[[], float] = time.monotonic) -> None:
        self._costs = costs
        self._clock = clock
        self._last: OrderedDict[bytes, _Last] = OrderedDict()

    def took(self, request: Request, route: Route) -> None:
        """The turn was answered by `route`."""
        key = _conversation(request)
        self._last[key] = _Last(route.model, prompt_tokens(request), self._clock())
        self._last.move_to_end(key)
        if len(self._last) > MAX_CONVERSATIONS:
            self._last.popitem(last=False)

    def weigh(self, asked: Asked, choice: Choice) -> Choice:
        """`choice`, or the model of the conversation's last turn where moving does not pay."""
        last = self._last.get(_conversation(asked.request))
        if last is None or last.model == choice.model or self._clock() - last.at_s > IDLE_S:
            return choice
        order = asked.tiers.distinct
        if last.model not in order or order.index(choice.model) > order.index(last.model):
            return choice
        now = prompt_tokens(asked.request)
        prefix = min(last.tokens, now)
        why = self._worth(asked.routes, last.model, choice.model, Usage(prompt_tokens=now, cached_tokens=prefix))
        if why is None:
            return choice
        kept = f"the conversation stays with {last.model!r}, {why} (else {choice.why})"
        return replace(choice, model=last.model, tier=asked.tiers.lowest(last.model), why=kept, then=None)

    def _worth(self, routes: Mapping[str, tuple[Route, ...]], here: str, there: str, usage: Usage) -> str | None:
        """Why staying is worth it; None where it is not. `usage` is this turn's with the prefix cached."""
        usage = replace(usage, completion_tokens=ANSWER_TOKENS)
        stay = self._costs.expected(routes[here][0], usage)
        move = self._costs.expected(routes[there][0], replace(usage, cached_tokens=0))
        prefix = f"{usage.cached_tokens:,} tokens of prefix"
        if stay is not None and move is not None:
            return f"which has {prefix} in its cache: about ${stay:f}, {there!r} without them ${move:f}" if stay <= move else None
        added = usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens
        if usage.cached_tokens <= added:
            return None
        return f"which has {prefix} in its cache, more than the {added:,} that this turn is taken to add"


def _conversation(request: Request) -> bytes:
    digest = blake2b(digest_size=16)
    parts = [request.tenant or request.principal.tenant, request.prompt or ""]
    messages = request.messages or ()
    first = next((place for place, message in enumerate(messages) if message.role == "user"), len(messages))
    parts += [part for message in messages[: first + 1] for part in (message.role, message.content)]
    for part in parts:
        content = part.encode("utf-8", errors="surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    digest.update(repr(request.prompt_token_ids or ()).encode())
    return digest.digest()
