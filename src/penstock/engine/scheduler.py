"""Which tokens of which sequences run next.

`plan()` reserves memory and says what to compute, `commit()` records what came of it, `audit()` proves that nothing is
lost. One loop serves everything: a sequence has tokens, some are not computed yet, a step computes a few more. A
prompt is many, a decode is one, a cached prefix is none, a preempted sequence is a prompt again.

Order. A sequence's rank is `arrival + priority * ageing_s`, smaller first. Waiting lowers everybody's effective
priority at the same speed, so the order between two sequences never changes and one number holds it: a later arrival
passes only if its priority is better by more than the time between them, and nobody waits forever. Between accounts the
tokens that each was served decide who is admitted (`engine.fair`).

The best-ranked running sequence is never preempted for another and a job that cannot fit alone is refused at `add`,
so each step makes progress on at least one sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.core.errors import Bug, ContextTooLong, InvalidRequest
from penstock.core.types import FinishReason
from penstock.engine.blocks import Block, BlockPool, chain
from penstock.engine.fair import OUTPUT_WEIGHT, FairQueue
from penstock.engine.messages import Job, MemoryPlan
from penstock.engine.sequence import Sequence, Slice


@dataclass(slots=True)
class Counters:
    """Totals since the start."""

    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0


@dataclass(slots=True)
class Scheduler:
    """Owns all live sequences and the block pool. Knows no tensors and no clock: times are given to it."""

    memory: MemoryPlan
    ageing_s: float = 5.0
    watermark: float = 0.01
    prefix_caching: bool = True
    eos_token_ids: frozenset[int] = frozenset()
    pool: BlockPool = field(init=False)
    running: list[Sequence] = field(init=False, default_factory=list)  # sorted by rank
    counters: Counters = field(init=False, default_factory=Counters)
    _waiting: FairQueue = field(init=False, default_factory=FairQueue)
    _live: dict[str, Sequence] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = BlockPool(self.memory.num_blocks, self.memory.block_size)

    # -- in and out

    def add(self, job: Job, now_s: float, seed: int = 0) -> Sequence:
        """Queue a job. Raises InvalidRequest for what could never run, however long it waited."""
        if job.id in self._live:
            raise InvalidRequest(f"a job with id {job.id!r} is already running")
        if not job.prompt:
            raise InvalidRequest("the prompt has no tokens", hint="send at least one token", param="prompt")
        sequence = Sequence(job, self.rank(job, now_s), now_s, seed)
        longest = sequence.num_prompt + sequence.max_tokens
        if longest > self.memory.max_model_len:
            raise ContextTooLong(
                f"{sequence.num_prompt} prompt tokens + max_tokens {sequence.max_tokens} = {longest}, "
                f"the limit is max_model_len {self.memory.max_model_len}",
                hint="shorten the prompt or lower max_tokens",
            )
        if self._blocks_for(longest) > self.pool.num_blocks:
            raise ContextTooLong(
                f"{longest} tokens need {self._blocks_for(longest)} KV blocks, the engine has {self.pool.num_blocks}",
                hint="lower max_tokens or give the engine more kv_bytes",
            )
        self._live[job.id] = sequence
        self._waiting.add(sequence)
        return sequence

    def rank(self, job: Job, now_s: float) -> float:
        return now_s + job.priority * self.ageing_s

    def abort(self, job_id: str) -> Sequence | None:
        """End a sequence at once and give its blocks back. None when there is none of that id."""
        sequence = self._live.get(job_id)
        if sequence is not None:
            self._finish(sequence, "abort")
        return sequence

    @property
    def num_waiting(self) -> int:
        return len(self._live) - len(self.running)

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    @property
    def kv_usage(self) -> float:
        return self.pool.num_held / self.pool.num_blocks

    # -- one step

    def plan(self, now_s: float) -> list[Slice]:
        """Reserve memory for the next step and return its slices: decodes first, then prompts in chunks."""
        size = self.memory.block_size
        for sequence in list(self.running):
            if 0 < len(sequence.blocks) * size < len(sequence.tokens):  # no blocks: it was preempted for one before it
                self._grow(sequence)
        slices: list[Slice] = []
        prompts: list[Sequence] = []
        for sequence in self.running:
            if sequence.num_pending == 1:
                slices.append(Slice(sequence, sequence.num_computed, 1))
            else:
                prompts.append(sequence)
        budget = self.memory.max_step_tokens - len(slices)
        if budget > len(prompts):
            prompts += self._admit(budget - len(prompts))
        slices += share(prompts, budget)
        for piece in slices:
            if piece.sequence.first_slice_s is None:
                piece.sequence.first_slice_s = now_s
        return slices

    def commit(self, slices: Iterable[Slice], sampled: Mapping[str, int]) -> list[Sequence]:
        """Record a computed step; `sampled` has the next token of each sequence whose slice reached its end.

        Returns the sequences that ended with it; their `finish_reason` is set and their blocks are given back.
        """
        ended: list[Sequence] = []
        size = self.memory.block_size
        for piece in slices:
            sequence = piece.sequence
            if sequence.finish_reason is not None:
                continue  # aborted between plan and commit
            if sequence.num_computed != piece.start:
                raise Bug(f"sequence {sequence.job.id} committed at {piece.start}, computed up to {sequence.num_computed}")
            stop = piece.start + piece.count
            sequence.num_computed = stop
            if piece.start // size != stop // size:
                self._publish(sequence, piece.start)
            if stop != len(sequence.tokens):
                continue
            if stop == len(sequence.job.prompt):
                self.counters.prompt_tokens += sequence.num_prompt
            if sequence.job.sampling.max_tokens:
                sequence.tokens.append(sampled[sequence.job.id])
                self.counters.generation_tokens += 1
                self._waiting.charge(sequence, OUTPUT_WEIGHT)
            reason = self._reason_to_stop(sequence)
            if reason is not None:
                self._finish(sequence, reason)
                ended.append(sequence)
        return ended

    def audit(self) -> None:
        """Raise `Bug` unless every block and every sequence is accounted for."""
        self.pool.audit(s.blocks for s in self._live.values())
        waiting = list(self._waiting)
        if len(waiting) + len(self.running) != len(self._live):
            raise Bug(f"{len(self._live)} live sequences, but {len(waiting)} waiting + {len(self.running)} running")
        for sequence in waiting:
            if sequence.blocks or sequence.num_computed:
                raise Bug(f"waiting sequence {sequence.job.id} holds {len(sequence.blocks)} blocks")
        for sequence in self.running:
            if len(sequence.blocks) < self._blocks_for(sequence.num_computed):
                raise Bug(f"sequence {sequence.job.id} computed {sequence.num_computed} tokens in {len(sequence.blocks)} blocks")

    # -- how

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.memory.block_size)

    def _grow(self, sequence: Sequence) -> None:
        """Reserve a block for the token to come, preempting from the worst rank upwards until there is one."""
        missing = self._blocks_for(len(sequence.tokens)) - len(sequence.blocks)
        while missing > 0:
            blocks = self.pool.allocate(missing)
            if blocks is not None:
                sequence.blocks += blocks
                return
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return

    def _preempt(self, sequence: Sequence) -> None:
        self.counters.preemptions += 1
        self.running.remove(sequence)
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.num_computed = sequence.num_copied = 0
        self._waiting.put_back(sequence)

    def _admit(self, most: int) -> list[Sequence]:
        """Start up to `most` waiting sequences in order, each with all blocks of its known tokens or not at all."""
        admitted: list[Sequence] = []
        if not self._waiting or len(self.running) >= self.memory.max_num_seqs:
            return admitted
        pending = self._digests_in_progress() if self.prefix_caching else set()
        for sequence in self._waiting.candidates():
            if sequence.awaits in pending:
                continue
            cached = self._cached_prefix(sequence)
            sequence.awaits = self._awaited(sequence, len(cached), pending)
            if sequence.awaits is not None:
                continue  # its prefix is being computed right now: wait for it instead of computing it twice
            if not self._reserve(sequence, cached):
                break  # in order: a smaller one behind it must not starve it
            self._waiting.take(sequence)
            pending.update(sequence.digests[len(cached) :])
            admitted.append(sequence)
            if len(admitted) == most or len(self.running) == self.memory.max_num_seqs:
                break
        return admitted

    def _reserve(self, sequence: Sequence, cached: list[Block]) -> bool:
        """Take the cached prefix and blocks for the other known tokens, or nothing at all."""
        kept_free = int(self.watermark * self.pool.num_blocks) if self.running else 0
        missing = self._blocks_for(len(sequence.tokens)) - len(cached)
        self.pool.retain(cached)
        blocks = self.pool.allocate(missing) if missing + kept_free <= self.pool.num_available else None
        if blocks is None:
            self.pool.release(cached)
            return False
        sequence.blocks = cached + blocks
        sequence.num_computed = len(cached) * self.memory.block_size
        if sequence.first_slice_s is None:
            sequence.num_cached = sequence.num_computed
            self.counters.prefix_queries += sequence.num_prompt if self.prefix_caching else 0
            self.counters.prefix_hits += sequence.num_cached
            self._waiting.charge(sequence, sequence.num_prompt - sequence.num_cached)
        self.running.append(sequence)
        self.running.sort(key=lambda s: (s.rank, s.arrival_s, s.job.id))
        return True

    def _cached_prefix(self, sequence: Sequence) -> list[Block]:
        """Cached blocks for the tokens before the last one, which is always computed: its logits are wanted."""
        if not self.prefix_caching:
            return []
        chain(sequence.digests, sequence.tokens, sequence.job.salt, self.memory.block_size)
        if sequence.job.sampling.prompt_logprobs is not None:
            return []  # each prompt position's logits are wanted
        most = (len(sequence.tokens) - 1) // self.memory.block_size
        return self.pool.match(sequence.digests[:most], sequence.tokens, sequence.job.salt)

    def _awaited(self, sequence: Sequence, num_cached: int, pending: set[bytes]) -> bytes | None:
        """Identity of the last of the blocks, right behind its cached prefix, that others are about to publish."""
        if sequence.job.sampling.prompt_logprobs is not None:
            return None  # it computes its whole prompt anyway
        most = (len(sequence.tokens) - 1) // self.memory.block_size
        awaited = list(itertools.takewhile(pending.__contains__, sequence.digests[num_cached:most]))
        return awaited[-1] if awaited else None

    def _digests_in_progress(self) -> set[bytes]:
        """Identities of the full prompt blocks that running sequences are about to publish."""
        size = self.memory.block_size
        return {d for s in self.running if s.num_pending > 1 for d in s.digests[s.num_computed // size :]}

    def _publish(self, sequence: Sequence, start: int) -> None:
        """Enter the blocks that became full since `start` into the prefix tree."""
        size = self.memory.block_size
        if not self.prefix_caching:
            return
        chain(sequence.digests, sequence.tokens, sequence.job.salt, size)
        for index in range(start // size, sequence.num_computed // size):
            parent = sequence.blocks[index - 1] if index else None
            tokens = tuple(sequence.tokens[index * size : (index + 1) * size])
            digest = sequence.digests[index]
            block = self.pool.insert(sequence.blocks[index], digest, tokens, sequence.job.salt, parent)
            if block is not sequence.blocks[index]:
                sequence.blocks[index] = block
                sequence.num_copied = min(sequence.num_copied, index)

    def _reason_to_stop(self, sequence: Sequence) -> FinishReason | None:
        sampling, num_output = sequence.job.sampling, sequence.num_output
        if num_output and num_output >= sampling.min_tokens:
            last = sequence.tokens[-1]
            if (last in self.eos_token_ids and not sampling.ignore_eos) or last in sampling.stop_token_ids:
                return "stop"
        return "length" if num_output >= sequence.max_tokens else None

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finish_reason = reason
        del self._live[sequence.job.id]
        if sequence.blocks:
            self.running.remove(sequence)
            self.pool.release(sequence.blocks)
            sequence.blocks = []
        else:
            self._waiting.remove(sequence)
        if not self._live:
            self._waiting.forget()


def share(sequences: Iterable[Sequence], budget: int) -> list[Slice]:
    """Divide `budget` tokens over prompts max-min fairly: short ones finish, long ones get equal chunks of the rest."""
    slices: list[Slice] = []
    waiting = sorted(sequences, key=lambda s: s.num_pending)
    for index, sequence in enumerate(waiting):
        count = min(sequence.num_pending, budget // (len(waiting) - index))
        if count:
            slices.append(Slice(sequence, sequence.num_computed, count))
            budget -= count
    return slices
