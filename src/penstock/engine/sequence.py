"""A sequence: tokens, of which some are computed. There is no prefill state and no decode state.

Mutable and private to the engine. `tokens` is the prompt followed by what was sampled; the first `num_computed` of
them have their keys and values in `blocks`. Preemption sets `num_computed` back to zero and gives the blocks back;
nothing else about the sequence changes, so resuming it is just computing it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from penstock.core.errors import Bug
from penstock.core.types import FinishReason
from penstock.engine.blocks import Block
from penstock.engine.messages import Job, Scored


@dataclass(slots=True, eq=False)
class Sequence:
    """One job under way. Invariant: `0 <= num_computed < len(tokens)` until it finishes."""

    job: Job
    rank: float  # smaller runs earlier; constant, see `Scheduler.rank`
    arrival_s: float
    seed: int
    tokens: list[int] = field(init=False)
    digests: list[bytes] = field(default_factory=list)  # of the full blocks of `tokens`, as far as computed so far
    awaits: bytes | None = None  # while waiting: the block that another sequence is computing for it, too
    blocks: list[Block] = field(default_factory=list)
    num_copied: int = 0  # leading blocks whose ids the batch's block table already has
    num_computed: int = 0
    num_cached: int = 0  # prompt tokens found in the prefix cache at first admission
    first_slice_s: float | None = None
    prompt_scores: list[Scored | None] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    prefill_s: float = 0.0  # engine time taken, see `engine.use`
    decode_s: float = 0.0
    kv_s: float = 0.0
    kv_block_s: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = list(self.job.prompt)

    @property
    def num_prompt(self) -> int:
        return len(self.job.prompt)

    @property
    def num_output(self) -> int:
        return len(self.tokens) - len(self.job.prompt)

    @property
    def num_pending(self) -> int:
        """Tokens not computed yet."""
        return len(self.tokens) - self.num_computed

    @property
    def max_tokens(self) -> int:
        if self.job.sampling.max_tokens is None:
            raise Bug(f"job {self.job.id} came without max_tokens")
        return self.job.sampling.max_tokens


class Slice(Struct, frozen=True):
    """Tokens `start : start + count` of a sequence, to be computed in one step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count

    @property
    def reaches_end(self) -> bool:
        """Whether the step computes the last known token, so that a next one can be sampled."""
        return self.stop == len(self.sequence.tokens)
