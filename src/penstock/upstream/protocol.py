"""What every upstream can do, and what some can do besides."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

from penstock.core.types import Event, Health, ModelCard, PromptInfo, Request, Route
from penstock.trace import Tab


class Upstream(Protocol):
    """A source of answers. `tests/contract` says what an implementation owes, and can be run against one."""

    def models(self) -> tuple[ModelCard, ...]:
        """The models served here, with what each one samples by default."""

    def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        """Answer `request` with the model that `route` names: `PromptInfo` at most once, then `Delta`s, then one `Finish`.
        A request with `inputs` gets one `Vectors` instead of `Delta`s.

        Each choice's last `Delta` carries its `finish_reason`. A `PenstockError` may be raised at any time; nothing
        comes after it. Closing the generator early frees everything that the request held. `tab.usage` and `tab.use` say
        what the call has used by the time the generator has closed, whichever way that came about.
        """

    def health(self) -> Health:
        """Whether requests can be answered now. Never blocks."""

    async def close(self) -> None:
        """Free everything. Answers still streaming end in an error."""


@runtime_checkable
class Tokenizing(Protocol):
    """An upstream that knows how its models turn text into tokens."""

    async def tokenize(self, request: Request) -> PromptInfo:
        """What the prompt of `request` becomes: its tokens, and the text when it was made from text."""

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids`, special tokens included. Raises `InvalidRequest` for one outside the vocabulary."""

    def token_strings(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        """How each token is displayed."""


@runtime_checkable
class Counting(Protocol):
    """An upstream that counts the tokens of a prompt without telling them."""

    async def count_tokens(self, request: Request, route: Route) -> int:
        """How many tokens the prompt of `request` has. Raises a `PenstockError`."""


def embedding_models(upstreams: Mapping[str, Upstream]) -> frozenset[str]:
    """The models that make vectors."""
    return frozenset(card.id for upstream in upstreams.values() for card in upstream.models() if card.embeds)


def tokenizing(upstream: Upstream) -> Tokenizing | None:
    """`upstream`, where it knows its tokenizer. Asked for each request: `isinstance` would look at every method of the protocol."""
    return cast(Tokenizing, upstream) if hasattr(upstream, "tokenize") else None


def routes_by_model(upstreams: Mapping[str, Upstream]) -> dict[str, tuple[Route, ...]]:
    """For each model its routes, in the order of the upstreams that serve it."""
    routes: dict[str, tuple[Route, ...]] = {}
    for name, upstream in upstreams.items():
        for card in upstream.models():
            routes[card.id] = (*routes.get(card.id, ()), Route(upstream=name, model=card.id))
    return routes
