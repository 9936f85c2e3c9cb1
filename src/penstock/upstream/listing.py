"""Which models an upstream serves, and by which names: as the config says, else as the server lists them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from penstock.core.config import UpstreamSettings
from penstock.core.errors import LoadError, PenstockError
from penstock.core.types import ModelCard
from penstock.upstream.http import BRIEF_S, HTTP
from penstock.upstream.refusal import UNREADABLE

EMBEDDING_NAMES = ("embed", "minilm", "bge-", "gte-", "/e5-")  # no list says what a model is for

log = logging.getLogger(__name__)


class Meta(Struct):
    n_ctx: int | None = None  # llama.cpp


class ModelBody(Struct):
    """One entry of a server's list. The context's length has a name for every server."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = None  # vLLM, SGLang, Penstock
    context_length: int | None = None  # OpenRouter, Together
    context_window: int | None = None  # Groq
    max_context_length: int | None = None  # Mistral
    max_input_tokens: int | None = None  # Anthropic
    max_tokens: int | None = None  # Anthropic: of the answer
    meta: Meta | None = None

    @property
    def context(self) -> int | None:
        told = (self.max_model_len, self.context_length, self.context_window, self.max_context_length, self.max_input_tokens)
        return next((length for length in (*told, self.meta and self.meta.n_ctx) if length), None)


class ListBody(Struct):
    data: list[ModelBody]


class Listing(Struct, frozen=True):
    """`names`: served here → named there."""

    cards: tuple[ModelCard, ...] = ()
    names: Mapping[str, str] = {}


async def cards_of(settings: UpstreamSettings, http: HTTP, path: str = "/models") -> Listing:
    """The models of an upstream. A config that names them needs no list, but takes lengths from it where there is one.

    Raises LoadError where neither names any.
    """
    named = names_of(settings)
    within_s = min(settings.connect_s, BRIEF_S) if named else BRIEF_S  # nobody waits long for what is only nice to know
    try:
        listed = msgspec.json.decode(await http.get(path, within_s=within_s), type=ListBody).data
    except (PenstockError, *UNREADABLE) as error:
        if not named:
            hint = 'start it first, or name its models: models = ["…"]'
            raise LoadError(f"the upstream {settings.name!r} at {settings.url} does not list its models: {error}", hint=hint) from error
        log.warning("upstream %s does not list its models: %s", settings.name, error)
        listed = []
    if not named and not listed:
        raise LoadError(f"the upstream {settings.name!r} at {settings.url} lists no models", hint='name them: models = ["…"]')
    return listing(settings, named or {model.id: model.id for model in listed}, listed)


def names_of(settings: UpstreamSettings) -> dict[str, str]:
    """The names in the config, served here → named there."""
    models = settings.models
    return dict(models) if isinstance(models, dict) else {name: name for name in models}


def listing(settings: UpstreamSettings, names: Mapping[str, str], listed: list[ModelBody] | None = None) -> Listing:
    """Cards for `names`. What the config says of lengths goes before what the server says."""
    known = {model.id: model for model in listed or ()}
    created = int(time.time())
    cards = []
    for served, theirs in names.items():
        body = known.get(theirs, ModelBody(theirs))
        cards.append(
            ModelCard(
                id=served,
                created=created,
                owned_by=body.owned_by or settings.name,
                root=theirs,
                max_model_len=settings.context_tokens or body.context,
                embeds=any(part in theirs.lower() for part in EMBEDDING_NAMES),
                max_output_tokens=settings.max_output_tokens or body.max_tokens,
            )
        )
    return Listing(tuple(cards), names)
