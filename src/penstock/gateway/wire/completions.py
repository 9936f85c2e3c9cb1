"""The body of `/v1/completions`."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import Request
from penstock.gateway.wire.call import (
    Context,
    GenerationCall,
    GenerationFields,
    check_token_ids,
    make_call,
    make_request,
    make_sampling,
    wanted_tokens,
)
from penstock.gateway.wire.fields import MAX_PROMPTS

DEFAULT_MAX_TOKENS = 16  # as OpenAI's


class CompletionFields(GenerationFields, kw_only=True):
    """Every field that `/v1/completions` honours."""

    prompt: str | list[str | int | list[int]] | None = None
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None


def completion_call(fields: CompletionFields, context: Context) -> GenerationCall:
    """Check the fields against each other and make the call, one request for each prompt. Raises InvalidRequest, Unsupported."""
    _check_best_of(fields)
    wanted = wanted_tokens(fields, context.defaults.max_tokens or DEFAULT_MAX_TOKENS)
    if wanted == 0 and not fields.echo:
        raise InvalidRequest("max_tokens is 0; the least is 1", hint="only with echo it may be 0", param="max_tokens")
    sampling = make_sampling(fields, context.defaults, max_tokens=wanted, logprobs=fields.logprobs)
    if fields.echo and fields.logprobs is not None and sampling.prompt_logprobs is None:
        sampling = structs.replace(sampling, prompt_logprobs=fields.logprobs)
    add_special_tokens = True if fields.add_special_tokens is None else fields.add_special_tokens
    plain = structs.replace(make_request(fields, context, sampling), echo=bool(fields.echo), add_special_tokens=add_special_tokens)
    requests = [_with_prompt(plain, prompt) for prompt in read_prompts(fields.prompt)]
    return make_call(fields, context, requests, prefix="cmpl")


def read_prompts(prompt: str | Sequence[str | int | list[int]] | None) -> list[str | list[int]]:
    """A text, texts, token ids or lists of token ids, as a list of prompts. Raises InvalidRequest."""
    if prompt is None or (not isinstance(prompt, str) and len(prompt) == 0):
        raise InvalidRequest("prompt is missing or empty", hint="send a text, token ids, or a list of either", param="prompt")
    if isinstance(prompt, str):
        return [prompt]
    ids = [item for item in prompt if isinstance(item, int)]
    prompts: list[str | list[int]] = [ids] if ids else [item for item in prompt if not isinstance(item, int)]
    if (ids and len(ids) < len(prompt)) or len({type(item) for item in prompts}) > 1:
        raise InvalidRequest("prompt mixes texts and token ids", hint="send one kind", param="prompt")
    if len(prompts) > MAX_PROMPTS:
        raise InvalidRequest(f"prompt has {len(prompts)} prompts; the most is {MAX_PROMPTS}", param="prompt")
    return prompts


def _with_prompt(request: Request, prompt: str | list[int]) -> Request:
    if isinstance(prompt, str):
        return structs.replace(request, prompt=prompt)
    if not prompt:
        raise InvalidRequest("prompt has an empty list of token ids", param="prompt")
    check_token_ids("prompt", prompt)
    return structs.replace(request, prompt_token_ids=tuple(prompt))


def _check_best_of(fields: CompletionFields) -> None:
    n = 1 if fields.n is None else fields.n
    if fields.best_of is not None and fields.best_of != n:
        message = f"best_of is {fields.best_of} and n is {n}: ranking completions is not supported"
        raise Unsupported(message, hint=f"send best_of {n} or leave it out", param="best_of")
