"""The upstream that is an engine of our own: text to tokens, jobs for the engine, tokens back to text."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import (
    EngineUse,
    Event,
    Finish,
    Health,
    ModelCard,
    PromptInfo,
    Request,
    Route,
    Sampling,
    Timings,
    Usage,
)
from penstock.engine.client import EngineClient
from penstock.engine.messages import Job, Output
from penstock.text import ChatTemplate, Tokenizer
from penstock.trace import Tab
from penstock.upstream.choice import Choice, named
from penstock.upstream.prompt import Prompter, check_token_ids
from penstock.upstream.reasons import overall

_THREAD_TOKENS = 8_192  # more are detokenized in a thread, beside the event loop


class LocalUpstream:
    """Serves one model with one engine. It owns the engine: closing the upstream stops it."""

    def __init__(self, engine: EngineClient, tokenizer: Tokenizer, template: ChatTemplate | None, card: ModelCard) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._template = template
        self._card = card
        self._serial = itertools.count()

    def models(self) -> tuple[ModelCard, ...]:
        """The one model. Raises `NotReady` before the engine has loaded it."""
        info = self._engine.info
        return (replace(self._card, max_model_len=info.plan.max_model_len, default_sampling=info.default_sampling),)

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        """`PromptInfo` comes with the engine's first output, so that nothing is sent while another route may be tried.

        A choice that a stop string ends still runs in the engine: it is aborted. Raises Unsupported for what an engine of
        our own cannot do yet.
        """
        refuse_unsupported(request)
        prompter = self._prompter()
        prompt = await prompter.make(request)
        jobs = self._jobs(request, prompt.token_ids, prompter.max_tokens(request, len(prompt.token_ids)))
        choices = {job.id: Choice(index, job, self._tokenizer) for index, job in enumerate(jobs)}
        left = set(choices)
        used: dict[str, EngineUse] = {}
        first: Output | None = None
        try:
            async with aclosing(self._engine.submit(jobs, used)) as outputs:
                async for output in outputs:
                    if first is None:
                        first = output
                        tab.queue_s, tab.first_s = output.queue_s, time.monotonic() if output.token_ids else None
                        yield self._scored(prompt, output)
                    if output.id not in left or (delta := choices[output.id].push(output)) is None:
                        continue
                    yield delta
                    if delta.finish_reason is None:
                        continue
                    left.discard(output.id)
                    if not left:
                        break
                    if output.finish_reason is None:
                        self._engine.abort([output.id])
        finally:
            if used or first is not None:
                tab.usage, tab.use = _usage(prompt, first, choices.values(), used.values()), _total(used.values())
        yield _finish(_usage(prompt, first, choices.values(), used.values()), first, choices.values())

    def health(self) -> Health:
        return self._engine.health()

    async def close(self) -> None:
        await self._engine.close()

    async def tokenize(self, request: Request) -> PromptInfo:
        refuse_unsupported(request)
        return await self._prompter().make(request)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        check_token_ids(token_ids, self._engine.info.vocab_size, param="tokens")
        if len(token_ids) > _THREAD_TOKENS:
            return await asyncio.to_thread(self._tokenizer.decode, token_ids, skip_special_tokens=False)
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)

    def token_strings(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(map(self._tokenizer.token, token_ids))

    def _prompter(self) -> Prompter:
        info = self._engine.info
        return Prompter(
            tokenizer=self._tokenizer, template=self._template, vocab_size=info.vocab_size, max_model_len=info.plan.max_model_len
        )

    def _jobs(self, request: Request, prompt: tuple[int, ...], max_tokens: int) -> list[Job]:
        """One job per choice. Their names are ours: two clients may use the same request id."""
        serial = next(self._serial)
        bad_token_ids = bad_words_as_tokens(request.sampling.bad_words, self._tokenizer)
        return [
            Job(
                id=f"{request.id}/{serial}/{index}",
                prompt=prompt,
                sampling=replace(request.sampling, max_tokens=max_tokens, seed=_seed(request.sampling, index)),
                bad_token_ids=bad_token_ids,
                salt=request.tenant,
                priority=request.priority + request.principal.priority,
                account=request.principal.key_id,
            )
            for index in range(request.n)
        ]

    def _scored(self, prompt: PromptInfo, first: Output) -> PromptInfo:
        scores = first.prompt_scores
        logprobs = None if scores is None else tuple(None if score is None else named(score, self._tokenizer) for score in scores)
        return replace(prompt, logprobs=logprobs, num_cached_tokens=first.num_cached_tokens)


def bad_words_as_tokens(words: Sequence[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The token sequences that spell `words`, at the start of a text and after a space. Raises `InvalidRequest` for an empty word."""
    if not all(word.strip() for word in words):
        raise InvalidRequest("a bad word is empty", hint="leave it out", param="bad_words")
    spellings = (spelling for word in words for spelling in (word.lstrip(), f" {word.lstrip()}"))
    sequences = (tuple(tokenizer.encode(spelling, add_special_tokens=False)) for spelling in spellings)
    return tuple(dict.fromkeys(sequences))


def _seed(sampling: Sampling, index: int) -> int | None:
    """Each choice has a seed of its own, the first one that of the request; 63 bits, as the engine's counters are."""
    return None if sampling.seed is None else (sampling.seed + index) % 2**63


def refuse_unsupported(request: Request) -> None:
    """Raises `Unsupported`, which names the field, for what only other upstreams honour."""
    choice = request.tool_choice
    asked = {
        "input": request.inputs is not None,
        "tools": bool(request.tools),
        "tool_choice": choice is not None and (choice.mode == "required" or choice.name is not None),
        "messages": any(message.tool_calls or message.role == "tool" for message in request.messages or ()),
        "response_format": (request.response_format or {}).get("type", "text") != "text",
        "reasoning_effort": request.reasoning_effort not in (None, "none"),
    }
    what = {"input": "embeddings", "messages": "turns that call tools"}
    for param, is_asked in asked.items():
        if is_asked:
            hint = "leave it out, or ask for a model of an upstream that supports it"
            raise Unsupported(f"{request.model!r} does not support {what.get(param, param)}", hint=hint, param=param)


def _usage(prompt: PromptInfo, first: Output | None, choices: Iterable[Choice], used: Iterable[EngineUse]) -> Usage:
    """Tokens so far. A prompt counts as soon as the engine has computed a part of it."""
    started = first is not None or any(use.prefill_s for use in used)
    return Usage(
        prompt_tokens=len(prompt.token_ids) if started else 0,
        completion_tokens=sum(choice.num_tokens for choice in choices),
        cached_tokens=first.num_cached_tokens if first else 0,
    )


def _total(used: Collection[EngineUse]) -> EngineUse | None:
    """What all choices took together; None where the engine said nothing."""
    if not used:
        return None
    return EngineUse(
        prefill_s=sum(use.prefill_s for use in used),
        decode_s=sum(use.decode_s for use in used),
        kv_s=sum(use.kv_s for use in used),
        kv_block_s=sum(use.kv_block_s for use in used),
    )


def _finish(usage: Usage, first: Output | None, choices: Collection[Choice]) -> Finish:
    reason = overall(choice.finish_reason or "abort" for choice in choices)
    return Finish(reason=reason, usage=usage, timings=Timings(queue_s=first.queue_s if first else None))
