"""The two completion routes: read a body, run its requests through the pipeline, write the answer as it comes."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from msgspec import structs
from starlette.types import Receive, Scope, Send

from penstock.core.config import ServerSettings
from penstock.core.errors import InvalidRequest, NotReady
from penstock.core.types import PromptInfo, Request, Vectors
from penstock.gateway.connection import EVENTS, Reply, read_body, while_connected
from penstock.gateway.edge import Exchange, exchange_of
from penstock.gateway.merge import Placed, merged
from penstock.gateway.wire.answer import Prompt, Shape
from penstock.gateway.wire.call import SANE_ID, Call, Context, GenerationFields
from penstock.gateway.wire.chat import ChatFields, chat_call
from penstock.gateway.wire.chat_answer import ChatShape
from penstock.gateway.wire.collect import Chunks, Whole
from penstock.gateway.wire.completions import CompletionFields, completion_call
from penstock.gateway.wire.decode import decode
from penstock.gateway.wire.fields import CHAT_NEUTRAL, COMPLETION_NEUTRAL, Neutral
from penstock.gateway.wire.text_answer import TextShape
from penstock.pipeline import Pipeline

F = TypeVar("F", bound=GenerationFields)

BODY_TIMEOUT_S = 30.0  # a body that takes longer is refused
WRITE_TIMEOUT_S = 60.0  # a client that reads nothing for so long, at most twice so long, is given up


@dataclass(frozen=True)
class Dialect(Generic[F]):
    """What tells one route from the other."""

    fields: type[F]
    neutral: Mapping[str, Neutral]
    make_call: Callable[[F, Context], Call]
    shape: Callable[[Call], Shape]


CHAT = Dialect(ChatFields, CHAT_NEUTRAL, chat_call, ChatShape)
TEXT = Dialect(CompletionFields, COMPLETION_NEUTRAL, completion_call, TextShape)


class Generate(Generic[F]):
    """The ASGI endpoint of one dialect. A client that leaves ends its requests at once."""

    def __init__(self, pipeline: Pipeline, settings: ServerSettings, dialect: Dialect[F]) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, max_bytes=self._settings.max_body_bytes, timeout_s=BODY_TIMEOUT_S)
        call = self._read(body, exchange_of(scope))
        reply = Reply(send)
        work = self._stream(call, reply) if call.stream else self._whole(call, reply)
        await while_connected(receive, reply, work, patience_s=WRITE_TIMEOUT_S)

    def _read(self, body: bytes, exchange: Exchange) -> Call:
        fields, labels = decode(body, self._dialect.fields, self._dialect.neutral)
        _take_id(fields, exchange)
        model = known_model(self._pipeline, fields.model)
        exchange.fields.update(model=model, stream=bool(fields.stream), **({"labels": labels} if labels else {}))
        context = Context(
            request_id=exchange.request_id,
            unique=secrets.token_hex(4),
            created=int(time.time()),
            model=model,
            defaults=self._pipeline.default_sampling(model),
        )
        return self._dialect.make_call(fields, context)

    async def _whole(self, call: Call, reply: Reply) -> None:
        whole = Whole(call, self._dialect.shape(call))
        async with aclosing(self._run(call)) as events:
            async for place, event in events:
                if isinstance(event, PromptInfo):
                    whole.prompt(place, await self._prompt(call.requests[place], event))
                elif not isinstance(event, Vectors):
                    whole.add(place, event)
        await reply.json(whole.body())

    async def _stream(self, call: Call, reply: Reply) -> None:
        """The head goes out with the first piece, so that whatever fails before it is a plain HTTP error."""
        chunks = Chunks(call, self._dialect.shape(call))
        started = False
        async with aclosing(self._run(call)) as events:
            async for place, event in events:
                if isinstance(event, PromptInfo):
                    chunks.prompt(place, await self._prompt(call.requests[place], event))
                elif not isinstance(event, Vectors) and (written := chunks.add(place, event)):
                    if not started:
                        await reply.start(EVENTS, headers=(("cache-control", "no-cache"), ("x-accel-buffering", "no")))
                        started = True
                    await reply.write(written)
        await reply.write(chunks.end(), last=True)

    def _run(self, call: Call) -> AsyncGenerator[Placed, None]:
        return merged([self._pipeline.run(request) for request in call.requests])

    async def _prompt(self, request: Request, info: PromptInfo) -> Prompt:
        """What an echo shows of the prompt; nothing is looked up for anyone else."""
        if not request.echo:
            return Prompt(info=info)
        ids = structs.replace(request, messages=None, prompt=None, prompt_token_ids=info.token_ids)
        text = await self._pipeline.detokenize(ids) if info.text is None else info.text
        names = await self._pipeline.token_strings(request, info.token_ids[:1])
        return Prompt(info=info, text=text, first_token="".join(names))


def known_model(pipeline: Pipeline, given: str | None) -> str:
    """The model asked for, or the first one served where none is named."""
    if given is not None:
        return given
    cards = pipeline.models()
    if not cards:
        raise NotReady("no model is served")
    return cards[0].id


def _take_id(fields: GenerationFields, exchange: Exchange) -> None:
    """vLLM's `request_id` names the request, unless the header already did."""
    if fields.request_id is None:
        return
    if not SANE_ID.fullmatch(fields.request_id):
        raise InvalidRequest("request_id goes with up to 128 letters, digits and . _ : @ / -", param="request_id")
    if not exchange.named:
        exchange.request_id = fields.request_id
