"""What a request body becomes, whatever its dialect: a `Call`; and the fields that both of OpenAI's completion routes share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct, structs

from penstock.core.errors import Forbidden, InvalidRequest
from penstock.core.types import CacheUse, Choose, Options, Principal, Request, Sampling
from penstock.gateway.wire.decode import check_value
from penstock.gateway.wire.fields import INT32, MAX_CHOICES, MAX_STOP_CHARS

SALT = "\x1f"  # between a tenant and what a request adds to it
SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}")
TOKEN_ID_LISTS = ("stop_token_ids", "allowed_token_ids")


class PenstockFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """What only Penstock knows: `explain` asks for the `penstock` object in the answer; for the rest see `Options`."""

    explain: bool | None = None
    cache: CacheUse | None = None
    samples: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    choose: Choose | None = None
    quality: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_cost_usd: Annotated[float, Meta(gt=0)] | None = None

    def options(self) -> Options:
        """Raises InvalidRequest for what makes no sense together."""
        if self.choose is not None and (self.samples or 1) == 1:
            raise InvalidRequest(
                "penstock.choose picks one of several samples, and one is made", hint="send penstock.samples", param="penstock.choose"
            )
        return Options(
            cache=self.cache,
            samples=self.samples or 1,
            choose=self.choose,
            quality=self.quality,
            max_cost_usd=None if self.max_cost_usd is None else Decimal(repr(self.max_cost_usd)),
        )


class BodyFields(Struct, kw_only=True):
    """Honoured by every dialect. None: the client left it unset."""

    model: str | None = None
    penstock: PenstockFields | None = None


class StreamOptions(Struct, kw_only=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class GenerationFields(BodyFields, kw_only=True):
    """Honoured by both `/v1/chat/completions` and `/v1/completions`."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    prompt_logprobs: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    priority: int | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    request_id: str | None = None
    cache_salt: str | None = None


_SAMPLED_AS_GIVEN = tuple(
    name
    for name in GenerationFields.__struct_fields__
    if name in Sampling.__struct_fields__ and name not in ("max_tokens", "top_k", "stop", "bad_words", *TOKEN_ID_LISTS)
)


class Call(Struct, frozen=True, kw_only=True):
    """One HTTP request: what to run, and how to write the answer. `explain`: with the `penstock` object."""

    id: str
    model: str
    created: int  # unix seconds
    requests: tuple[Request, ...]
    stream: bool = False
    explain: bool = False


class GenerationCall(Call, frozen=True, kw_only=True):
    """One HTTP request for completions. Choice `i` of `requests[p]` is choice `p * n + i` of the answer."""

    include_usage: bool = False
    continuous_usage: bool = False
    token_ids: bool = False  # return the token ids beside the text
    tokens_as_ids: bool = False  # name tokens in logprobs by id

    @property
    def n(self) -> int:
        return self.requests[0].n

    @property
    def num_choices(self) -> int:
        return self.n * len(self.requests)


class Context(Struct, frozen=True, kw_only=True):
    """What a body alone does not say."""

    request_id: str
    unique: str  # tells apart two requests to which a client gave the same id
    created: int  # unix seconds
    model: str
    defaults: Sampling  # the model's own, for fields left unset
    principal: Principal = Principal()
    explain: bool = False  # a header asked for it

    def tenant(self, salt: str | None = None) -> str:
        """Whose caches a request may share; `salt` parts them once more."""
        return self.principal.tenant if salt is None else f"{self.principal.tenant}{SALT}{salt}"

    def named(self, requests: Sequence[Request], answer_id: str, fields: BodyFields) -> tuple[Request, ...]:
        """The requests of one answer, each with an id that nothing else has, and with what is asked of Penstock alone."""
        options = Options() if fields.penstock is None else fields.penstock.options()
        named = (f"{answer_id}-{self.unique}-{place}" for place in range(len(requests)))
        return tuple(structs.replace(request, id=id, options=options) for request, id in zip(requests, named, strict=True))

    def explains(self, fields: BodyFields, requests: Sequence[Request]) -> bool:
        """Whether the answer explains itself. Raises InvalidRequest for several prompts at once."""
        asked = None if fields.penstock is None else fields.penstock.explain
        wanted = self.explain if asked is None else asked
        if wanted and len(requests) > 1:
            message = f"one prompt is explained at a time, and {len(requests)} were sent"
            raise InvalidRequest(message, hint="leave out penstock.explain", param="penstock.explain")
        return wanted


def make_call(fields: GenerationFields, context: Context, requests: Sequence[Request], *, prefix: str) -> GenerationCall:
    """Check what concerns the answer as a whole, and give each request its id."""
    options = _stream_options(fields)
    n = requests[0].n
    if len(requests) * n > MAX_CHOICES:
        raise InvalidRequest(f"{len(requests)} prompts times n={n} are {len(requests) * n} choices; the most is {MAX_CHOICES}", param="n")
    if fields.stream and fields.prompt_logprobs is not None:
        raise InvalidRequest("prompt_logprobs come only without stream", hint="leave out stream", param="prompt_logprobs")
    answer_id = f"{prefix}-{context.request_id}"
    return GenerationCall(
        id=answer_id,
        model=context.model,
        created=context.created,
        requests=context.named(requests, answer_id, fields),
        stream=bool(fields.stream),
        explain=context.explains(fields, requests),
        include_usage=bool(options.include_usage),
        continuous_usage=bool(options.continuous_usage_stats),
        token_ids=bool(fields.return_token_ids),
        tokens_as_ids=bool(fields.return_tokens_as_token_ids),
    )


def make_request(fields: GenerationFields, context: Context, sampling: Sampling) -> Request:
    """A request without its prompt and its id."""
    if fields.cache_salt is not None and not 0 < len(fields.cache_salt) <= MAX_STOP_CHARS:
        raise InvalidRequest(f"cache_salt has {len(fields.cache_salt)} characters; from 1 to {MAX_STOP_CHARS} go", param="cache_salt")
    return Request(
        id="",
        model=context.model,
        sampling=sampling,
        given=tuple(name for name in _SAMPLED_AS_GIVEN if getattr(fields, name) is not None),
        n=1 if fields.n is None else fields.n,
        streams=bool(fields.stream),
        truncate_prompt_tokens=fields.truncate_prompt_tokens,
        principal=context.principal,
        tenant=context.tenant(fields.cache_salt),
        priority=_priority(fields.priority, context.principal),
    )


def _priority(asked: int | None, principal: Principal) -> int:
    """Only an admin key may go before others."""
    if asked is not None and asked < 0 and not principal.admin:
        raise Forbidden(f"priority is {asked}: only admin keys go before others", hint="the least is 0", param="priority")
    return asked or 0


def make_sampling(fields: GenerationFields, defaults: Sampling, *, max_tokens: int | None, logprobs: int | None) -> Sampling:
    """The client's wishes over the model's defaults. `logprobs`: alternatives wanted beside each token, None for no logprobs."""
    given: dict[str, object] = {name: value for name in _SAMPLED_AS_GIVEN if (value := getattr(fields, name)) is not None}
    given.update({name: _token_ids(name, ids) for name in TOKEN_ID_LISTS if (ids := getattr(fields, name)) is not None})
    if fields.top_k is not None:
        given["top_k"] = fields.top_k if fields.top_k > 0 else None
    if fields.stop is not None:
        given["stop"] = _texts("stop", [fields.stop] if isinstance(fields.stop, str) else fields.stop)
    if fields.bad_words is not None:
        given["bad_words"] = _texts("bad_words", fields.bad_words)
    _check_bias(fields.logit_bias or {})
    if max_tokens is not None and fields.min_tokens is not None and fields.min_tokens > max_tokens:
        raise InvalidRequest(f"min_tokens is {fields.min_tokens} and max_tokens only {max_tokens}", param="min_tokens")
    if max_tokens is not None and defaults.min_tokens > max_tokens and fields.min_tokens is None:
        given["min_tokens"] = max_tokens
    return structs.replace(defaults, **given, max_tokens=max_tokens, logprobs=logprobs)


def check_sampling(sampling: Sampling) -> None:
    """Hold a sampling that did not come over the wire to what the wire demands of one. Raises InvalidRequest."""
    for name in sampling.__struct_fields__:
        check_value(name, getattr(sampling, name))
    for name in TOKEN_ID_LISTS:
        ids = getattr(sampling, name)
        if ids is not None:
            _token_ids(name, list(ids))
    _texts("stop", list(sampling.stop))
    _texts("bad_words", list(sampling.bad_words))
    _check_bias(sampling.logit_bias)


def wanted_tokens(fields: GenerationFields, default: int | None) -> int | None:
    """max_completion_tokens is the newer name of max_tokens."""
    old, new = fields.max_tokens, fields.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise InvalidRequest(f"max_tokens is {old} and max_completion_tokens {new}", hint="send one of them", param="max_tokens")
    return default if old is None and new is None else old if new is None else new


def check_token_ids(name: str, ids: Sequence[int]) -> None:
    """Refuse ids that no vocabulary has. What exceeds this model's vocabulary the upstream refuses."""
    if ids and not (min(ids) >= 0 and max(ids) <= INT32):
        wrong = next(token_id for token_id in ids if not 0 <= token_id <= INT32)
        raise InvalidRequest(f"{name} has the token id {str(wrong)[:24]}; ids go from 0 to {INT32}", param=name)


def _token_ids(name: str, ids: list[int]) -> tuple[int, ...]:
    check_token_ids(name, ids)
    if name == "allowed_token_ids" and not ids:
        raise InvalidRequest("allowed_token_ids is empty: no token could follow", hint="leave it out to allow all", param=name)
    return tuple(ids)


def _texts(name: str, texts: list[str]) -> tuple[str, ...]:
    for text in texts:
        if not 0 < len(text) <= MAX_STOP_CHARS:
            raise InvalidRequest(f"{name} has a text of {len(text)} characters; from 1 to {MAX_STOP_CHARS} go", param=name)
    return tuple(texts)


def _check_bias(bias: dict[int, float]) -> None:
    check_token_ids("logit_bias", list(bias))
    for token_id, value in bias.items():
        if not -100 <= value <= 100:
            raise InvalidRequest(f"logit_bias of token {token_id} is {value:g}; from -100 to 100 go", param="logit_bias")


def _stream_options(fields: GenerationFields) -> StreamOptions:
    if fields.stream_options is None:
        return StreamOptions()
    if not fields.stream:
        raise InvalidRequest("stream_options go only with stream", hint="send stream true or leave them out", param="stream_options")
    if fields.stream_options.include_obfuscation:
        raise InvalidRequest("obfuscation is not supported", hint="leave it out", param="stream_options.include_obfuscation")
    return fields.stream_options
