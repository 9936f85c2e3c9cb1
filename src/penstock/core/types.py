"""The nouns that cross rooms.

All of them are frozen: validated once at the edge (`gateway.wire`, or the `Engine` facade) and trusted after it.
Times are seconds on the monotonic clock unless the name says otherwise; counts are tokens unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Literal

from msgspec import Struct

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "abort", "error"]
CacheState = Literal["off", "bypass", "miss", "hit"]
Purpose = Literal["answer", "retry", "hedge", "embedding", "cache", "cascade"]
Room = Literal["guard", "cache", "router"]
CacheUse = Literal["on", "off", "read", "write", "refresh"]
Choose = Literal["majority", "confidence"]


class ToolCall(Struct, frozen=True, kw_only=True):
    """A call that a model asks for. `arguments` is JSON text exactly as the model wrote it, perhaps invalid."""

    id: str
    name: str
    arguments: str


class ToolCallPiece(Struct, frozen=True, kw_only=True):
    """A streamed part of one call: `id` and `name` come with its first piece, `arguments` bit by bit."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Tool(Struct, frozen=True, kw_only=True):
    """A function that the model may ask to be called. `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, object] = {}
    strict: bool | None = None


class ToolChoice(Struct, frozen=True, kw_only=True):
    """Whether tools may, must not or must be called; `name` is set when it must be that one."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a chat, as plain text. An assistant's turn may call tools; a tool's turn answers `tool_call_id`."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""  # an assistant's own in an earlier turn, given back to models that want it


class Sampling(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen and when a completion ends. `temperature == 0` means greedy."""

    max_tokens: int | None = None  # None: as many as the model's context leaves
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int | None = None  # None: all
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    logprobs: int | None = None  # number of alternatives reported beside the chosen token; None: none at all
    prompt_logprobs: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    bad_words: tuple[str, ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    skip_special_tokens: bool = True


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one key may use; None: unlimited. Budgets are US dollars per UTC day and UTC month."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    budget_day_usd: Decimal | None = None
    budget_month_usd: Decimal | None = None
    budget_action: Literal["refuse", "warn"] = "refuse"

    @property
    def has_budget(self) -> bool:
        return self.budget_day_usd is not None or self.budget_month_usd is not None


class Principal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On whose behalf a request runs. The default is the anonymous user of an open server: it may do everything."""

    key_id: str = ""
    name: str = ""
    tenant: str = ""  # partition of every cache; a key has one of its own unless it was given another
    models: tuple[str, ...] | None = None  # names that may be asked for; None: all
    routes: tuple[str, ...] | None = None  # path prefixes that may be called, such as "/v1/embeddings"; None: all
    admin: bool = True
    priority: int = 0  # lower runs earlier
    limits: Limits = Limits()


class Options(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What only Penstock honours. None: as the settings say.

    `cache`: "read" never stores, "write" never answers from it, "refresh" answers anew and replaces what is stored.
    `samples` answers are made as one batch over one prompt and `choose` picks the one that is given: the final answer that most
    of them share (self-consistency, Wang et al. 2022), or the most confident.
    """

    cache: CacheUse | None = None
    samples: int = 1
    choose: Choose | None = None
    quality: float | None = None  # least probability that the answer is as good as the best model's, 0 to 1
    max_cost_usd: Decimal | None = None  # of the whole request


class Request(Struct, frozen=True, kw_only=True):
    """What a client asks for. Exactly one of `messages`, `prompt`, `prompt_token_ids` and `inputs` is set.

    `inputs` are texts, or token ids, to be made into vectors; the answer is one `Vectors` and the `Finish`.
    """

    id: str
    model: str  # a served model, an alias of one, or "auto"
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    inputs: tuple[str, ...] | tuple[tuple[int, ...], ...] | None = None
    dimensions: int | None = None  # of the vectors; None: the model's own
    sampling: Sampling = Sampling()
    given: tuple[str, ...] = ()  # fields of `sampling` that the client set itself, perhaps to what is the default
    n: int = 1
    echo: bool = False
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, object] = {}
    truncate_prompt_tokens: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, object] | None = None  # in OpenAI's shape
    reasoning_effort: str | None = None
    options: Options = Options()
    streams: bool = True  # the pieces are wanted as they come; False: an upstream may send them all at the end
    principal: Principal = Principal()
    tenant: str = ""  # partition of the caches: two tenants share neither KV nor answers
    priority: int = 0  # lower runs earlier
    deadline_s: float | None = None  # from arrival; None: the server's own


class TopLogprob(Struct, frozen=True):
    """One alternative at one position."""

    token_id: int
    token: str
    logprob: float


class TokenLogprob(Struct, frozen=True):
    """A token's log-probability (natural log) and its alternatives, best first."""

    token_id: int
    token: str
    logprob: float
    top: tuple[TopLogprob, ...] = ()


class Delta(Struct, frozen=True, kw_only=True):
    """A piece of one choice. `finish_reason` is set on that choice's last piece and only there.

    `num_pieces`: as many as the upstream sent apart. Where no token ids are told, each is taken for one token.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallPiece, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None  # the stop string or token id that ended it
    num_pieces: int = 1


class PromptInfo(Struct, frozen=True, kw_only=True):
    """What the prompt became; sent once, before the first `Delta`. `logprobs[0]` is None: nothing predicts the first token."""

    token_ids: tuple[int, ...]
    text: str | None = None
    logprobs: tuple[TokenLogprob | None, ...] | None = None
    num_cached_tokens: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of one request. cached and cache_write are parts of prompt, reasoning a part of completion.

    `estimated`: no upstream said so; counted from what was delivered.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class EngineUse(Struct, frozen=True, kw_only=True):
    """What a request took of an engine of our own.

    Each step's wall time is divided over its sequences twice: by the tokens computed (`prefill_s`, `decode_s`) and by the
    KV blocks held (`kv_s`). Over all requests `prefill_s + decode_s`, and also `kv_s`, add up to the time the engine was busy.
    """

    prefill_s: float = 0.0
    decode_s: float = 0.0
    kv_s: float = 0.0
    kv_block_s: float = 0.0  # blocks held times seconds


class Timings(Struct, frozen=True, kw_only=True):
    """Measured seconds of one request; None where the stage was not reached."""

    queue_s: float | None = None
    ttft_s: float | None = None  # arrival to first token
    tpot_s: float | None = None  # mean time per output token after the first
    e2e_s: float | None = None


class Failure(Struct, frozen=True, kw_only=True):
    """An error as plain data: what a client may be told."""

    status: int
    code: str
    message: str
    hint: str | None = None
    param: str | None = None
    retryable: bool = False
    retry_after_s: float | None = None


class Finish(Struct, frozen=True, kw_only=True):
    """The end of a request: exactly one for each, whatever happened."""

    reason: FinishReason
    usage: Usage = Usage()
    timings: Timings = Timings()
    cost_usd: Decimal | None = None  # None: unknown
    failure: Failure | None = None


class Vectors(Struct, frozen=True, kw_only=True):
    """The embeddings of a request's `inputs`, in their order."""

    vectors: tuple[tuple[float, ...], ...]


Event = PromptInfo | Delta | Vectors | Finish


class Route(Struct, frozen=True, kw_only=True):
    """A place that can answer: which upstream, and the name under which the model is served (the upstream may know it by another)."""

    upstream: str
    model: str

    def __str__(self) -> str:
        """As headers, logs and charts call it."""
        return f"{self.upstream}/{self.model}"


class Decision(Struct, frozen=True, kw_only=True):
    """Where a request goes, in order of preference, and why. `scores` are those of `candidates`, where a policy made any."""

    route: Route
    candidates: tuple[Route, ...] = ()
    scores: tuple[float, ...] = ()
    why: str = ""
    tier: str = ""
    escalation: Escalation | None = None


class Escalation(Struct, frozen=True, kw_only=True):
    """A cascade: the answer of the first decision is given only if it can be trusted, else `decision` is taken.

    `trust` is the least calibrated probability that the answer is right, 0 to 1. `shadow`: it is given in any case.
    """

    decision: Decision
    trust: float
    shadow: bool = False


class Judgement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a room decided about a request, and why. `shadow`: it would have, and changed nothing.

    `rule` is the guard's rule, the cache's tier or the router's policy; `action` is its word for what it did.
    """

    room: Room
    rule: str
    action: str
    why: str = ""
    score: float | None = None
    shadow: bool = False
    took_s: float = 0.0


class Judged(Struct, frozen=True, kw_only=True, tag="judged"):
    """One judgement, as the ledger keeps it."""

    id: str  # the same for ever
    request_id: str
    started_at: float  # unix seconds, of the request
    key_id: str
    tenant: str
    model: str  # as asked for
    judgement: Judgement


Judge = Callable[[Judgement], None]  # takes note of a decision, for the ledger and whoever watches


def unheard(judgement: Judgement) -> None:
    """The `Judge` of what is decided for no answer: it takes no note."""


class Price(Struct, frozen=True, kw_only=True):
    """US dollars per token, exact. None: priced as prompt (cached, cache_write) or completion (reasoning) tokens are."""

    prompt: Decimal
    completion: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None
    request: Decimal = Decimal(0)  # per call


class Attempt(Struct, frozen=True, kw_only=True, tag="attempt"):
    """One call of an upstream, as the ledger keeps it: retries, hedges and embeddings each have their own.

    A cached answer is one, too, with the purpose "cache" and the cost zero.
    """

    id: str  # the same for ever: writing an attempt twice changes nothing
    request_id: str
    number: int  # within its request, from 0
    purpose: Purpose
    key_id: str
    tenant: str
    model: str  # as asked for
    route: Route
    started_at: float  # unix seconds
    reason: FinishReason
    failure: str | None = None  # an error's code
    usage: Usage = Usage()
    use: EngineUse | None = None  # of an engine of our own
    timings: Timings = Timings()
    cost_usd: Decimal | None = None  # None: unknown
    saved_usd: Decimal | None = None  # what a cached answer would have cost

    @property
    def used_tokens(self) -> int:
        """What counts against a limit of tokens: a cached answer takes none."""
        return 0 if self.purpose == "cache" else self.usage.total_tokens


class Stage(Struct, frozen=True, kw_only=True):
    """A stretch of a request's way, seconds since its arrival. `note` says what came of it."""

    name: str
    start_s: float
    end_s: float
    note: str = ""


class ModelCard(Struct, frozen=True, kw_only=True):
    """One served model, as `/v1/models` lists it."""

    id: str
    created: int  # unix seconds
    owned_by: str = "penstock"
    root: str | None = None
    max_model_len: int | None = None
    max_output_tokens: int | None = None
    embeds: bool = False  # it makes vectors, not answers
    default_sampling: Sampling = Sampling()  # for fields that a request leaves unset


class Health(Struct, frozen=True, kw_only=True):
    """Whether something can serve, and why not."""

    state: Literal["starting", "ready", "restarting", "stalled", "stopped"]
    why: str = ""

    @property
    def ready(self) -> bool:
        return self.state == "ready"
