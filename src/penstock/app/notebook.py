"""A model in this process, for notebooks and scripts:

    from penstock import Engine

    with Engine() as engine:
        print(engine.generate("What is 17 + 25?")[0].text)

Requests take the same path as over HTTP: through the pipeline, to an engine that batches them.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace
from tqdm import tqdm

from penstock.app.bars import LoadingBars
from penstock.app.loop import LoopThread
from penstock.app.stack import Stack, build
from penstock.core.config import DEFAULT_MODEL, EmbeddingSettings, EngineSpec, LedgerSettings, ModelSettings, PageSettings
from penstock.core.errors import InvalidRequest, from_failure
from penstock.core.settings import Settings
from penstock.core.types import Delta, Event, Finish, FinishReason, Message, Request, Sampling, Timings, TokenLogprob, Usage
from penstock.engine.messages import EngineInfo
from penstock.gateway.wire.call import check_sampling

Chat = Sequence[Message | Mapping[str, str]]


class Completion(Struct, frozen=True, kw_only=True):
    """One answer to one prompt. `logprobs` has one entry per token when the sampling asked for them."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None
    usage: Usage
    timings: Timings


class Engine:
    """One loaded model. Many prompts are computed together; calls from several threads are, too."""

    def __init__(self, model: str = DEFAULT_MODEL, spec: EngineSpec | None = None, *, progress: bool = True) -> None:
        """Load `model`: a built-in name, a Hugging Face id, a folder, a .gguf or .bin file. `progress` shows bars on stderr.

        Raises LoadError when there is no such model, MemoryPlanError when it does not fit.
        """
        self._name = model
        self._progress = progress
        self._loop = LoopThread()
        try:
            self._stack = self._loop.run(_build(model, spec or EngineSpec(), progress))
        except BaseException:
            self._loop.close()
            raise

    @property
    def info(self) -> EngineInfo:
        """What was loaded, and its memory plan."""
        return self._stack.served[self._name].info

    @property
    def has_chat_template(self) -> bool:
        """Whether the model can be sent messages."""
        return self._stack.served[self._name].has_template

    def generate(self, prompts: str | Sequence[str], sampling: Sampling | None = None, *, raw: bool = False) -> list[Completion]:
        """One completion for each prompt, in their order, computed together.

        A prompt is a user's message to a model that has a chat template; `raw` (and any other model) continues the text as it is.
        `sampling` defaults to the model's own. Raises InvalidRequest, ContextTooLong.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        requests = [self._request(text, sampling, raw) for text in texts]
        bar = tqdm(total=len(requests), unit="prompt", delay=0.5, disable=not self._progress)
        with bar:
            return self._loop.run(_all(self._stack, requests, bar))

    def chat(self, messages: Chat, sampling: Sampling | None = None) -> Completion:
        """The model's next message. `messages` are `Message`s or dicts with "role" and "content"."""
        return self._loop.run(_one(self._stack, self._request(messages, sampling, raw=False)))

    def stream(self, prompt: str | Chat, sampling: Sampling | None = None, *, raw: bool = False) -> Iterator[str]:
        """The answer's text piece by piece. Leaving the loop early stops the computation."""
        events = self._stack.pipeline.run(self._request(prompt, sampling, raw))
        for event in self._loop.iterate(events):
            if isinstance(event, Finish):
                _raise_failure(event)
            elif isinstance(event, Delta) and event.text:
                yield event.text

    def close(self) -> None:
        """Free the model. The engine cannot be used afterwards; closing it again does nothing."""
        if not self._loop.closed:
            self._loop.run(self._stack.close())
            self._loop.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _request(self, prompt: str | Chat, sampling: Sampling | None, raw: bool) -> Request:
        checked = _checked(sampling or self.info.default_sampling)
        request = Request(id=f"local-{uuid.uuid4().hex}", model=self._name, sampling=checked)
        if not isinstance(prompt, str):
            return replace(request, messages=_messages(prompt))
        if raw or not self.has_chat_template:
            return replace(request, prompt=prompt)
        return replace(request, messages=(Message(role="user", content=prompt),))


async def _build(model: str, spec: EngineSpec, progress: bool) -> Stack:
    served = ModelSettings(model=model, name=model, engine=replace(spec, in_process=True))
    settings = Settings(
        models=(served,),
        ledger=LedgerSettings(database="memory"),  # nothing is written to disk
        embeddings=EmbeddingSettings(enabled=False),
        page=PageSettings(enabled=False),
    )
    with LoadingBars(enabled=progress) as bars:
        return await build(settings, bars, show_downloads=progress)


async def _all(stack: Stack, requests: Sequence[Request], bar: tqdm[None]) -> list[Completion]:
    """Every request, as many at a time as the engine can batch."""
    (served,) = stack.served.values()
    slots = asyncio.Semaphore(2 * served.info.plan.max_num_seqs)

    async def answered(request: Request) -> Completion:
        async with slots:
            completion = await _one(stack, request)
        bar.update()
        return completion

    tasks = [asyncio.create_task(answered(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _one(stack: Stack, request: Request) -> Completion:
    async with aclosing(stack.pipeline.run(request)) as events:
        return _completion([event async for event in events])


def _completion(events: Sequence[Event]) -> Completion:
    deltas = [event for event in events if isinstance(event, Delta)]
    (finish,) = (event for event in events if isinstance(event, Finish))
    _raise_failure(finish)
    has_logprobs = any(delta.logprobs is not None for delta in deltas)
    return Completion(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        finish_reason=finish.reason,
        logprobs=tuple(entry for delta in deltas for entry in delta.logprobs or ()) if has_logprobs else None,
        usage=finish.usage,
        timings=finish.timings,
    )


def _raise_failure(finish: Finish) -> None:
    if finish.failure is not None:
        raise from_failure(finish.failure)


def _messages(chat: Chat) -> tuple[Message, ...]:
    plain = [msgspec.to_builtins(message) for message in chat]
    try:
        return msgspec.convert(plain, tuple[Message, ...])
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"messages: {error}", hint='each is {"role": "user", "content": "…"}', param="messages") from None


def _checked(sampling: Sampling) -> Sampling:
    """Held to the same types and bounds as over HTTP."""
    try:
        sampling = msgspec.convert(asdict(sampling), Sampling)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"sampling: {error}") from None
    check_sampling(sampling)
    return sampling
