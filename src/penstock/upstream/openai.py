"""Any server that speaks OpenAI's API: chat, text completions and embeddings, with tools, reasoning and logprobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.core.config import UpstreamSettings
from penstock.core.errors import UpstreamFailed
from penstock.core.types import Delta, Finish, ModelCard, Request, Usage, Vectors
from penstock.upstream.http import HTTP
from penstock.upstream.listing import Listing, cards_of
from penstock.upstream.openai_answer import OpenAIReader
from penstock.upstream.openai_request import Manners, encode, manners, path_of
from penstock.upstream.refusal import UNREADABLE
from penstock.upstream.remote import Reader, RemoteUpstream, Sent
from penstock.upstream.usage import OpenAIUsage, estimated


def openai_upstream(settings: UpstreamSettings) -> RemoteUpstream:
    """An upstream that is yet to be started."""
    return RemoteUpstream(settings, OpenAI(settings), {"authorization": f"Bearer {settings.api_key}"} if settings.api_key else {})


class OpenAI:
    """The dialect. Servers differ in their manners, which are known by their address and by who they say owns a model."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._manners: dict[str, Manners] = {}  # by the name served here

    async def listing(self, http: HTTP) -> Listing:
        listing = await cards_of(self._settings, http)
        self._manners = {card.id: manners(self._settings.url, card.owned_by) for card in listing.cards}
        return listing

    async def send(self, request: Request, card: ModelCard, model: str) -> Sent:
        body = encode(self._bounded(request), model, self._manners[card.id])
        return Sent(path_of(request), body, request.streams and request.inputs is None, {"x-request-id": request.id})

    def _bounded(self, request: Request) -> Request:
        """With the longest answer that the config tells: what is reserved for a request counts on it."""
        most = self._settings.max_output_tokens
        if most is None or request.inputs is not None or request.sampling.max_tokens is not None:
            return request
        return replace(request, sampling=replace(request.sampling, max_tokens=most))

    def reader(self, request: Request, model: str) -> Reader:
        name = self._settings.name
        return OpenAIReader(name, request) if request.inputs is None else VectorReader(name, request)


class Embedded(Struct):
    index: int
    embedding: tuple[float, ...]


class Embeddings(Struct):
    data: list[Embedded]
    usage: OpenAIUsage | None = None


_decode = msgspec.json.Decoder(Embeddings).decode


class VectorReader:
    """The answer to `inputs`, which comes whole."""

    def __init__(self, upstream: str, request: Request) -> None:
        self.done = False
        self._upstream = upstream
        self._request = request
        self._usage: Usage | None = None

    @property
    def started(self) -> bool:
        return self.done

    def read(self, events: Iterable[bytes]) -> list[Delta | Vectors]:
        try:
            found = _decode(b"".join(events))
        except UNREADABLE as error:
            raise UpstreamFailed(f"the upstream {self._upstream!r} sent what are no embeddings: {error}") from None
        self.done = True
        self._usage = found.usage.usage() if found.usage is not None else None
        wanted = len(self._request.inputs or ())
        if len(found.data) != wanted:
            raise UpstreamFailed(f"the upstream {self._upstream!r} sent {len(found.data)} vectors for {wanted} inputs")
        return [Vectors(vectors=tuple(item.embedding for item in sorted(found.data, key=lambda item: item.index)))]

    def end(self) -> Iterator[Delta | Finish]:
        yield Finish(reason="stop", usage=self.usage())

    def usage(self) -> Usage:
        return self._usage or estimated(self._request, 0)
