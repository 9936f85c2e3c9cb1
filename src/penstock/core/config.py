"""What the user may set: one frozen struct per room, one TOML file.

A `Spec` is as written and may say "auto"; the part that owns it resolves it once (the engine's in `engine.memory`).
`core.settings` fills these structs from defaults, file, environment and flags.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct

Auto = Literal["auto"]
Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
KVFormat = Literal["auto", "fp32", "bf16", "int8", "int4"]
KernelsName = Literal["auto", "torch", "portable", "avx2", "avx512vnni"]
Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Mode = Literal["off", "on", "shadow"]  # shadow: decide, write it down, change nothing
Action = Literal["allow", "redact", "refuse"]
WhenDown = Literal["refuse", "allow", "local"]
UpstreamKind = Literal["openai", "anthropic", "bedrock", "vertex"]

DEFAULT_MODEL = "penstock-mini"  # the built-in one


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP server. Nothing here is "auto", so that written and resolved are the same."""

    host: str = "127.0.0.1"
    port: Port = 8000  # 0: one that is free
    max_body_bytes: Count = 16 * 2**20  # a larger request gets 413
    deadline_s: Seconds = 600.0  # from a request's arrival to its last token
    drain_s: Seconds = 30.0  # after SIGTERM, how long running requests may take to finish
    max_connections: Count = 8192  # more are turned away with 503
    data_dir: str = "~/.local/share/penstock"  # keys, ledger, spool


class KeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may ask. On loopback a server without keys is open to all; elsewhere it answers only keys, unless `open`."""

    open: bool = False  # no key is needed although the server listens beyond loopback and has none
    secret: str = ""  # what hashes keys; "" keeps one in the data folder. The same on every gateway of one database
    refresh_s: Annotated[float, Meta(gt=0)] = 1.0  # a key made or revoked elsewhere counts after so long


class LimitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the limits of keys are counted, and what happens to each control while that place is down.

    "refuse": 503. "allow": unlimited. "local": counted by this process alone.
    """

    counters: str = "memory"  # memory, sqlite, or a redis:// URL for several gateways
    requests_when_down: WhenDown = "local"
    tokens_when_down: WhenDown = "local"
    concurrent_when_down: WhenDown = "local"
    budget_when_down: WhenDown = "refuse"
    timeout_s: Annotated[float, Meta(gt=0)] = 0.5  # a store that takes longer is down
    allow_unknown_price: bool = False  # let keys with a budget use what has no price


class LedgerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where each attempt is written down, and keys with it."""

    database: str = "sqlite"  # sqlite (in the data folder), sqlite:///PATH, postgresql://…, or memory
    sync_s: Annotated[float, Meta(gt=0)] = 1.0  # the most that a power cut loses; a killed process loses nothing


class PriceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What things cost. An unknown price stays unknown."""

    file: str = ""  # a TOML price book whose entries go before the shipped ones
    machine_usd_per_hour: Decimal | None = None  # of the machine that the engines run on
    kv_share: Share = 0.3  # part of engine time that is billed by KV blocks held, the rest by tokens computed


class RouterSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Other names for models, and how the model for "auto" is chosen. An alias may list several, tried in that order.

    The policies choose among the models of `tiers`. `quality` and `max_cost_usd` are two sides of one knob; a request may
    bring its own.
    """

    aliases: dict[str, str | list[str]] = {}
    auto: str = ""  # the model that "auto" means under the policy "fixed"; "": the first one served
    policy: Literal["fixed", "rules", "classifier", "cascade", "budget"] = "fixed"
    mode: Mode = "on"  # shadow: "auto" goes where "fixed" leads, and what the policy would have done is written down
    tiers: dict[Literal["simple", "medium", "complex", "reasoning"], str] = {}  # model of each; a missing one is the next above
    quality: Annotated[float, Meta(ge=0, le=1)] | None = None  # least probability that an answer is as good as the top tier's
    max_cost_usd: Decimal | None = None  # of one request, by its worst case
    classifier: str = ""  # file that `penstock router train` wrote
    calibration: str = ""  # file that `penstock router calibrate` wrote, for the cascade; "": the built-in models' own
    sticky: bool = True  # a conversation stays with its model while the lost prefix cache costs more than moving saves


class DispatchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How hard a route is tried before anything was sent to the client."""

    attempts: Count = 3  # calls of upstreams in all, for one request
    backoff_s: Seconds = 0.1  # before the first retry of the same route; doubles, with full jitter
    max_backoff_s: Seconds = 2.0
    breaker_failures: Count = 5  # in a row; then the route rests
    breaker_open_s: Seconds = 10.0  # until one request probes it
    hedge_after_s: Annotated[float, Meta(gt=0)] | None = None  # no first token by then: ask the next route too
    first_token_s: Annotated[float, Meta(gt=0)] | None = None  # no first token by then: the attempt has failed


class CacheSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whole answers, given again to the very same request of the same scope, or to one that means the same."""

    exact: Mode = "off"
    semantic: Mode = "off"
    store: str = "memory"  # memory, sqlite (in the data folder), or a redis:// URL
    max_bytes: Count = 16 * 2**20
    max_entries: Count = 100_000
    ttl_s: Annotated[float, Meta(gt=0)] = 3600.0
    delta: Annotated[float, Meta(gt=0, lt=1)] = 0.02  # of the semantic tier: most wrong answers, as a share of all lookups
    encoder: Literal["auto", "minilm", "static"] = "auto"  # auto: minilm where the extra `embeddings` is installed
    policy: str = ""  # a version of yours: changing it leaves all that is stored behind


class RuleSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One guardrail. `kind` says which; the settings below `budget_s` belong to some kinds only."""

    kind: str  # injection, pii, toxicity, grounded, json, topics, length, regex, or the name of a plugin
    name: str = ""  # as verdicts call it; "": its kind
    on: list[Literal["input", "tools", "output"]] = []  # what it reads; empty: what its kind usually reads
    action: Action = "refuse"
    keys: dict[str, Action] = {}  # other actions for some keys, by name
    dry_run: bool = False  # decide, write it down, change nothing
    budget_s: Annotated[float, Meta(gt=0)] = 5.0  # a check of one text that takes longer, its wait for a turn included, has failed
    when_failed: Literal["open", "closed"] = "closed"  # a rule that fails lets pass, or refuses
    threshold: float | None = None  # None: the one that was measured
    calibration: str = ""  # file that `penstock guard calibrate` wrote
    patterns: list[str] = []  # regular expressions (RE2), topics or entities, by kind
    regions: list[str] = []  # of "pii": countries whose telephone numbers may come without their code; empty: the built-in list
    max_chars: Count | None = None


class GuardSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may pass. Rules judge independently of each other; the strictest action wins."""

    mode: Mode = "on"
    rules: list[RuleSettings] = []
    hold_chars: Count = 1024  # the most of a stream that is held back while a match in it could still be growing


class EmbeddingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedding model that is served beside the others."""

    enabled: bool | Auto = "auto"  # auto: when the extra `embeddings` is installed
    name: Annotated[str, Meta(min_length=1)] = "all-minilm-l6-v2"


class TraceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is told about requests, and to whom."""

    otlp: str = ""  # an OTLP/HTTP endpoint for spans, such as http://localhost:4318; needs the extra `otel`
    service_name: str = "penstock"
    log_prompts: bool = False  # prompts and answers go into the log


class PageSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The web page."""

    enabled: bool = True
    history: Annotated[int, Meta(ge=1, le=100_000)] = 1000  # requests that it can show
    keep_text: bool = False  # whether it keeps their prompts and answers


class UpstreamSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server that answers, other than an engine of our own."""

    name: Annotated[str, Meta(min_length=1)]
    kind: UpstreamKind = "openai"
    url: str = ""  # such as http://localhost:8001/v1
    api_key: str = ""
    api_key_env: str = ""  # the environment variable that holds the key
    models: dict[str, str] | list[str] = {}  # name served here → name there; empty: what the server lists
    headers: dict[str, str] = {}  # sent with each request; not to Bedrock, whose SDK writes its own
    region: str = ""  # Bedrock and Vertex
    project: str = ""  # Vertex
    connect_s: Annotated[float, Meta(gt=0)] = 5.0
    idle_s: Annotated[float, Meta(gt=0)] = 120.0  # a stream without a byte for so long has failed
    max_connections: Count = 1024
    max_output_tokens: Count | None = None  # for budgets, where the price book does not know it
    context_tokens: Count | None = None


class EngineSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine, as written. Sizes in tokens unless the name says bytes."""

    device: Device = "auto"
    dtype: DType = "auto"
    weights: Annotated[str, Meta(min_length=1)] = "auto"  # auto, float or a format of `engine.quant.formats`
    kv_format: KVFormat = "auto"  # keys and values; auto: fp32 beside float32 weights, else bf16
    kernels: KernelsName = "auto"  # on a CPU; auto: the fastest that the processor can run, or torch where there are none
    max_model_len: Count | Auto = "auto"
    kv_bytes: Count | Auto = "auto"
    max_step_tokens: Count | Auto = "auto"
    max_num_seqs: Count | Auto = "auto"
    block_size: Count = 16
    prefix_caching: bool = True
    watermark: Share = 0.01  # share of KV blocks kept free when a new sequence is admitted
    ageing_s: Seconds = 5.0  # a waiting sequence gains one priority level per this many seconds
    max_queue: Annotated[int, Meta(ge=0)] = 512  # sequences accepted beyond max_num_seqs before 429
    step_deadline_s: Seconds = 30.0  # work queued and no step finished within it: not ready
    threads: Annotated[int, Meta(ge=1, le=1024)] | Auto = "auto"  # of the engine; auto: the cores that it may use
    in_process: bool = False


class ModelSettings(Struct, frozen=True, kw_only=True):
    """One model to serve: what to load, the name clients ask for, and its engine."""

    model: str = DEFAULT_MODEL  # built-in name, Hugging Face id, folder, .gguf or .bin file
    name: Annotated[str, Meta(min_length=1)] = DEFAULT_MODEL
    engine: EngineSpec = EngineSpec()
