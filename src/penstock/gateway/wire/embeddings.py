"""The body and the answer of `/v1/embeddings`."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from penstock.core.errors import Bug, InvalidRequest, Unsupported
from penstock.core.types import Delta, Finish, Request, Usage, Vectors
from penstock.gateway.wire.answer import Prompt
from penstock.gateway.wire.call import BodyFields, Call, Context, PenstockFields, check_token_ids
from penstock.gateway.wire.errors import Failed
from penstock.gateway.wire.explain import Explained, Told
from penstock.gateway.wire.fields import Neutral

MAX_INPUTS = 2048  # as OpenAI's

EMBEDDING_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        "input_type": Neutral("texts are embedded as they are"),
        "truncate_prompt_tokens": Neutral("what is too long is refused"),
        "normalize": Neutral("vectors are as the model makes them", (True,)),
    }
)


class EmbeddingFields(BodyFields, kw_only=True):
    """Every field that `/v1/embeddings` honours."""

    input: str | list[str | int | list[int]] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class EmbeddingCall(Call, frozen=True, kw_only=True):
    """One HTTP request for vectors. `base64`: as the bytes of little-endian 32-bit floats, else as numbers."""

    base64: bool = False


class Embedding(Struct, frozen=True, kw_only=True):
    kind: str = field(name="object", default="embedding")
    index: int
    embedding: tuple[float, ...] | str


class EmbeddingUsage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class Embeddings(Struct, frozen=True, kw_only=True):
    """The whole answer."""

    kind: str = field(name="object", default="list")
    data: tuple[Embedding, ...]
    model: str
    usage: EmbeddingUsage
    penstock: Explained | UnsetType = UNSET


def embedding_call(fields: EmbeddingFields, context: Context) -> EmbeddingCall:
    """Check the fields and make the call, one request for all inputs. Raises InvalidRequest."""
    if fields.dimensions is not None and fields.dimensions < 1:
        raise InvalidRequest(f"dimensions is {fields.dimensions}; the least is 1", param="dimensions")
    _check_wishes(fields.penstock)
    request = Request(
        id="",
        model=context.model,
        inputs=_inputs(fields.input),
        dimensions=fields.dimensions,
        streams=False,
        principal=context.principal,
        tenant=context.tenant(),
    )
    answer_id = f"embd-{context.request_id}"
    requests = context.named((request,), answer_id, fields)
    return EmbeddingCall(
        id=answer_id,
        model=context.model,
        created=context.created,
        requests=requests,
        explain=context.explains(fields, requests),
        base64=fields.encoding_format == "base64",
    )


def _check_wishes(wishes: PenstockFields | None) -> None:
    """Vectors come out one way only."""
    for name in ("samples", "choose", "quality"):
        if getattr(wishes, name, None) is not None:
            raise Unsupported(f"penstock.{name} goes with answers, not with vectors", hint="leave it out", param=f"penstock.{name}")


class WholeEmbeddings:
    """One call's vectors."""

    def __init__(self, call: EmbeddingCall) -> None:
        self._call = call
        self._vectors: Vectors | None = None
        self._usage = Usage()

    def prompt(self, place: int, prompt: Prompt) -> None:
        """Nothing of the inputs is told."""

    def add(self, place: int, event: Delta | Vectors | Finish) -> None:
        """Take in an event. Raises Failed where the request ended in a failure."""
        if isinstance(event, Vectors):
            self._vectors = event
        elif isinstance(event, Delta):
            raise Bug("text came where vectors were asked for")
        elif event.failure is not None:
            raise Failed(event.failure)
        else:
            self._usage = event.usage

    def body(self, told: Told) -> bytes:
        """The answer as JSON."""
        if self._vectors is None:
            raise Bug("the request ended without vectors")
        vectors = self._vectors.vectors
        body = Embeddings(
            data=tuple(Embedding(index=index, embedding=self._written(vector)) for index, vector in enumerate(vectors)),
            model=self._call.model,
            usage=EmbeddingUsage(self._usage.prompt_tokens, self._usage.prompt_tokens),
            penstock=told.explained or UNSET,
        )
        return msgspec.json.encode(body)

    def _written(self, vector: tuple[float, ...]) -> tuple[float, ...] | str:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if self._call.base64 else vector


def _inputs(given: str | Sequence[str | int | list[int]] | None) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
    """One or several texts, or token ids. Raises InvalidRequest."""
    items: list[str | int | list[int]] = [given] if isinstance(given, str) else list(given or ())
    if not items:
        raise InvalidRequest("input is missing or empty", hint="send a text, token ids, or a list of either", param="input")
    numbers = [item for item in items if isinstance(item, int)]
    if len(numbers) == len(items):
        items = [numbers]
    texts = tuple(item for item in items if isinstance(item, str))
    ids = tuple(tuple(item) for item in items if isinstance(item, list))
    if len(texts) < len(items) > len(ids):
        raise InvalidRequest("input mixes texts and token ids", hint="send one kind", param="input")
    if len(items) > MAX_INPUTS:
        raise InvalidRequest(f"input has {len(items)} entries; the most is {MAX_INPUTS}", param="input")
    if not all(texts or ids):
        raise InvalidRequest("input has an empty entry", hint="leave it out", param="input")
    for entry in ids:
        check_token_ids("input", entry)
    return texts or ids
