"""The nouns that cross rooms.

All of them are frozen: validated once at the edge (`gateway.wire`, or the `Engine` facade) and trusted after it.
Times are seconds on the monotonic clock unless the name says otherwise; counts are tokens unless the name says otherwise.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "content_filter", "abort", "error"]


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a chat, as plain text."""

    role: Role
    content: str
    name: str | None = None


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


class Request(Struct, frozen=True, kw_only=True):
    """What a client asks for. Exactly one of `messages`, `prompt` and `prompt_token_ids` is set."""

    id: str
    model: str
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    sampling: Sampling = Sampling()
    n: int = 1
    echo: bool = False
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, object] = {}
    truncate_prompt_tokens: int | None = None
    tenant: str = ""  # prefix-cache salt: two tenants never share KV
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
    """A piece of one choice. `finish_reason` is set on that choice's last piece and only there."""

    index: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None  # the stop string or token id that ended it


class PromptInfo(Struct, frozen=True, kw_only=True):
    """What the prompt became; sent once, before the first `Delta`. `logprobs[0]` is None: nothing predicts the first token."""

    token_ids: tuple[int, ...]
    text: str | None = None
    logprobs: tuple[TokenLogprob | None, ...] | None = None
    num_cached_tokens: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of one request. cached is a part of prompt, reasoning a part of completion."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


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
    failure: Failure | None = None


Event = PromptInfo | Delta | Finish


class Route(Struct, frozen=True, kw_only=True):
    """A place that can answer: which upstream, and the model's name there."""

    upstream: str
    model: str


class Decision(Struct, frozen=True, kw_only=True):
    """Where a request goes, in order of preference, and why."""

    route: Route
    candidates: tuple[Route, ...] = ()
    scores: tuple[float, ...] = ()
    why: str = ""


class Verdict(Struct, frozen=True, kw_only=True):
    """What a guard says of a text: let it pass, pass `text` instead, or refuse."""

    action: Literal["allow", "redact", "refuse"] = "allow"
    rule: str = ""
    why: str = ""
    text: str | None = None


class ModelCard(Struct, frozen=True, kw_only=True):
    """One served model, as `/v1/models` lists it."""

    id: str
    created: int  # unix seconds
    owned_by: str = "penstock"
    root: str | None = None
    max_model_len: int | None = None
    default_sampling: Sampling = Sampling()  # for fields that a request leaves unset


class Health(Struct, frozen=True, kw_only=True):
    """Whether something can serve, and why not."""

    state: Literal["starting", "ready", "restarting", "stalled", "stopped"]
    why: str = ""

    @property
    def ready(self) -> bool:
        return self.state == "ready"
