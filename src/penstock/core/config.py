"""What the user may set: one frozen struct per room, one TOML file.

A `Spec` is as written and may say "auto"; the part that owns it resolves it once (the engine's in `engine.memory`).
`core.settings` fills these structs from defaults, file, environment and flags.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Auto = Literal["auto"]
Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]

DEFAULT_MODEL = "penstock-mini"  # the built-in one


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP server. Nothing here is "auto", so that written and resolved are the same."""

    host: str = "127.0.0.1"
    port: Port = 8000  # 0: one that is free
    max_body_bytes: Count = 16 * 2**20  # a larger request gets 413
    deadline_s: Seconds = 600.0  # from a request's arrival to its last token
    drain_s: Seconds = 30.0  # after SIGTERM, how long running requests may take to finish


class EngineSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine, as written. Sizes in tokens unless the name says bytes."""

    device: Device = "auto"
    dtype: DType = "auto"
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
