"""The generating routes, one for each dialect: read a body, run its requests through the pipeline, write the answer as it comes."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic

from msgspec import structs
from starlette.types import Receive, Scope, Send

from penstock.core.config import ServerSettings
from penstock.core.errors import Bug, InvalidRequest, NotReady
from penstock.core.types import PromptInfo, Request
from penstock.gateway.connection import EVENTS, Reply, read_body, while_connected
from penstock.gateway.edge import Exchange, exchange_of, fresh_id
from penstock.gateway.merge import Placed, merged
from penstock.gateway.outflow import Outflow
from penstock.gateway.wire.answer import Prompt
from penstock.gateway.wire.call import SANE_ID, BodyFields, Call, Context, GenerationFields
from penstock.gateway.wire.decode import decode
from penstock.gateway.wire.dialect import C, Dialect, F, StreamWriter, WholeWriter
from penstock.gateway.wire.errors import Failed
from penstock.gateway.wire.explain import Told, headers, tell
from penstock.pipeline import Pipeline
from penstock.trace import Progress

BODY_TIMEOUT_S = 30.0  # a body that takes longer is refused
WRITE_TIMEOUT_S = 60.0  # a client that reads nothing for so long, at most twice so long, is given up
STREAM_HEADERS = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))


class Generate(Generic[F, C]):
    """The ASGI endpoint of one dialect. A client that leaves ends its requests at once."""

    def __init__(self, pipeline: Pipeline, settings: ServerSettings, dialect: Dialect[F, C]) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        body = await read_body(scope, receive, max_bytes=self._settings.max_body_bytes, timeout_s=BODY_TIMEOUT_S)
        call = self._read(body, exchange, explain=exchange.received.get(b"x-penstock-explain", b"").lower() == b"true")
        reply = Reply(send)
        answer = _Answer(self._pipeline, call, exchange, reply)
        work = answer.stream(self._stream_writer(call)) if call.stream else answer.whole(self._dialect.whole(call))
        await while_connected(scope, receive, reply, work, patience_s=WRITE_TIMEOUT_S)

    def _read(self, body: bytes, exchange: Exchange, *, explain: bool) -> C:
        dialect = self._dialect
        fields, labels = decode(body, dialect.fields, dialect.neutral, dialect.recorded)
        _take_id(fields, exchange)
        context = context_of(self._pipeline, exchange, fields.model, explain=explain)
        exchange.fields.update(model=context.model, **({"labels": labels} if labels else {}))
        call = dialect.make_call(fields, context)
        exchange.fields["stream"] = call.stream
        return call

    def _stream_writer(self, call: C) -> StreamWriter:
        if self._dialect.stream is None:
            raise Bug("a stream was asked of a dialect that has none")
        return self._dialect.stream(call)


class _Answer:
    """One call under way."""

    def __init__(self, pipeline: Pipeline, call: Call, exchange: Exchange, reply: Reply) -> None:
        self._pipeline = pipeline
        self._call = call
        self._exchange = exchange
        self._reply = reply
        self._runs: list[Progress] = []

    async def whole(self, writer: WholeWriter) -> None:
        try:
            async with aclosing(self._events()) as events:
                async for place, event in events:
                    if isinstance(event, PromptInfo):
                        writer.prompt(place, await self._prompt(self._call.requests[place], event))
                    else:
                        writer.add(place, event)
        finally:
            self._exchange.headers += headers(self._runs, pending=False)
        await self._reply.json(writer.body(self._told()))

    async def stream(self, writer: StreamWriter) -> None:
        """The head goes out with the first piece, so that whatever fails before it is a plain HTTP error."""
        self._exchange.last_words = writer.failed
        try:
            async with Outflow(self._reply) as out:
                try:
                    await self._pass_on(writer, out)
                except Failed:
                    if self._started:
                        out.put(self._told().comment)
                    raise
        finally:
            if not self._started:
                self._exchange.headers += headers(self._runs, pending=False)

    async def _pass_on(self, writer: StreamWriter, out: Outflow) -> None:
        async with aclosing(self._events()) as events:
            async for place, event in events:
                if isinstance(event, PromptInfo):
                    writer.prompt(place, await self._prompt(self._call.requests[place], event))
                elif written := writer.add(place, event):
                    if not self._started:
                        await self._start()
                    out.put(written)
                    if out.full:
                        await out.room()
        if not self._started:
            await self._start()
        out.finish(writer.end(self._told()))

    @property
    def _started(self) -> bool:
        return self._exchange.status is not None

    def _told(self) -> Told:
        return tell(self._exchange.request_id, self._runs, explain=self._call.explain)

    async def _start(self) -> None:
        self._exchange.headers += headers(self._runs, pending=True)
        await self._reply.start(EVENTS, headers=STREAM_HEADERS)

    def _events(self) -> AsyncGenerator[Placed, None]:
        self._exchange.told = True
        self._runs = [self._pipeline.begin(request) for request in self._call.requests]
        return merged([self._pipeline.run(run.request, run) for run in self._runs])

    async def _prompt(self, request: Request, info: PromptInfo) -> Prompt:
        """What an echo shows of the prompt; nothing is looked up for anyone else."""
        if not request.echo:
            return Prompt(info=info)
        ids = structs.replace(request, messages=None, prompt=None, prompt_token_ids=info.token_ids)
        text = await self._pipeline.detokenize(ids) if info.text is None else info.text
        names = await self._pipeline.token_strings(request, info.token_ids[:1])
        return Prompt(info=info, text=text, first_token="".join(names))


def context_of(pipeline: Pipeline, exchange: Exchange, model: str | None, *, explain: bool = False) -> Context:
    """What the body of `exchange` does not say. Raises NotReady."""
    model = known_model(pipeline, model)
    return Context(
        request_id=exchange.request_id,
        unique=fresh_id(64),
        created=int(time.time()),
        model=model,
        defaults=pipeline.default_sampling(model),
        principal=exchange.principal,
        explain=explain,
    )


def known_model(pipeline: Pipeline, given: str | None) -> str:
    """The model asked for, or the first one served where none is named."""
    if given is not None:
        return given
    cards = pipeline.models()
    if not cards:
        raise NotReady("no model is served", hint="the config has no [[models]] and no [[upstreams]] that lists any")
    return cards[0].id


def _take_id(fields: BodyFields, exchange: Exchange) -> None:
    """vLLM's `request_id` names the request, unless the header already did."""
    if not isinstance(fields, GenerationFields) or fields.request_id is None:
        return
    if not SANE_ID.fullmatch(fields.request_id):
        raise InvalidRequest("request_id goes with up to 128 letters, digits and . _ : @ / -", param="request_id")
    if not exchange.named:
        exchange.request_id = fields.request_id
