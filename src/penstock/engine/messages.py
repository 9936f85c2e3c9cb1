"""What the engine and its client say to each other: msgspec structs, msgpack on the wire, never pickle.

Client to engine: `Submit`, `Abort`, `Stop`. Engine to client: `Loading`, `Ready`, `Step`, `Fatal`.
"""

from __future__ import annotations

from msgspec import Struct

from penstock.core.config import EngineSpec
from penstock.core.types import EngineUse, Failure, FinishReason, Sampling


class Job(Struct, frozen=True, kw_only=True):
    """One sequence to generate. `sampling.max_tokens` is set; stop strings and bad words are not the engine's business."""

    id: str
    prompt: tuple[int, ...]
    sampling: Sampling
    bad_token_ids: tuple[tuple[int, ...], ...] = ()  # token sequences never to be completed
    salt: str = ""  # prefix-cache partition
    priority: int = 0  # lower runs earlier
    account: str = ""  # shares a full engine fairly with other accounts


class Alternative(Struct, frozen=True, array_like=True):
    """A token and its log-probability."""

    token_id: int
    logprob: float


class Scored(Struct, frozen=True, array_like=True):
    """The log-probability of a token at one position and the best alternatives there, best first."""

    token_id: int
    logprob: float
    top: tuple[Alternative, ...] = ()


class Output(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one step produced for one sequence. `finish_reason` is set on its last output and only there; an aborted job has
    one, too.

    `prompt_scores` has one entry per prompt token (None for the first) and comes with the first output.
    """

    id: str
    token_ids: tuple[int, ...] = ()
    scores: tuple[Scored, ...] | None = None
    prompt_scores: tuple[Scored | None, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None  # the stop token that ended it (it is part of token_ids)
    num_cached_tokens: int = 0  # prompt tokens that came from the prefix cache
    queue_s: float = 0.0  # from submission to its first slice
    failure: Failure | None = None  # why the job was refused
    use: EngineUse | None = None  # what the job has taken so far: with its last output, and with some before


class EngineStats(Struct, frozen=True, kw_only=True):
    """Gauges as of now and counters since the engine started."""

    num_running: int = 0
    num_waiting: int = 0
    kv_usage: float = 0.0  # share of blocks held by sequences
    num_steps: int = 0
    num_preemptions: int = 0
    prefix_queries: int = 0  # tokens looked up
    prefix_hits: int = 0  # tokens found
    prompt_tokens: int = 0  # of prompts that are fully computed; cached ones count too
    generation_tokens: int = 0
    step_tokens: int = 0  # tokens computed in the last step
    busy_s: float = 0.0  # wall time during which there was work
    forward_s: float = 0.0  # of which in the model's forward


class MemoryPlan(Struct, frozen=True, kw_only=True):
    """Where the memory goes, in bytes, and the sizes that follow."""

    device: str
    dtype: str  # of hidden states
    weights: str = "float"  # a format, "float", or "as stored"
    kv_format: str = "fp32"
    kernels: str = "torch"  # or the build of the native ones
    available_bytes: int
    weights_bytes: int
    activation_bytes: int
    kv_bytes: int
    block_size: int
    num_blocks: int
    max_model_len: int
    max_step_tokens: int
    max_num_seqs: int


class EngineInfo(Struct, frozen=True, kw_only=True):
    """What a loaded engine serves."""

    model: str
    architecture: str
    num_parameters: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    plan: MemoryPlan
    default_sampling: Sampling = Sampling()  # generation_config.json; applies to fields that a request leaves unset
    load_s: float = 0.0


class Configure(Struct, frozen=True, kw_only=True, tag=True):
    model: str
    spec: EngineSpec


class Submit(Struct, frozen=True, kw_only=True, tag=True):
    jobs: tuple[Job, ...]


class Abort(Struct, frozen=True, kw_only=True, tag=True):
    ids: tuple[str, ...]


class Stop(Struct, frozen=True, kw_only=True, tag=True):
    """End the process once what runs has been aborted."""


class Loading(Struct, frozen=True, kw_only=True, tag=True):
    stage: str
    done: int
    total: int


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    info: EngineInfo


class Step(Struct, frozen=True, kw_only=True, tag=True):
    outputs: tuple[Output, ...]
    stats: EngineStats


class Fatal(Struct, frozen=True, kw_only=True, tag=True):
    """The engine cannot go on, or could not load."""

    failure: Failure


ToEngine = Configure | Submit | Abort | Stop
FromEngine = Loading | Ready | Step | Fatal
