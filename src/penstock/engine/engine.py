"""The engine: receive jobs, plan, launch, commit, emit. One `step()`, no threads and no clock of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from msgspec import Struct
from torch import Tensor

from penstock.core.config import EngineSpec
from penstock.core.errors import Bug, InvalidRequest
from penstock.engine.batch import BatchBuilder, StepInputs
from penstock.engine.kernels.kv import KVCache
from penstock.engine.messages import EngineInfo, EngineStats, Job, Output
from penstock.engine.models.model import Model
from penstock.engine.processors import check_token_ids
from penstock.engine.sampler import Row, Sampled, Sampler
from penstock.engine.scheduler import Scheduler
from penstock.engine.sequence import Sequence as Seq
from penstock.engine.sequence import Slice
from penstock.engine.use import divide, holdings, use_of

USE_EVERY = 16  # outputs of a sequence; more news of its use would be paid for at every step
PROMPT_SCORE_ROWS = 128  # prompt positions whose logits are held at a time: [rows, vocabulary] floats


class Launched(Struct, frozen=True):
    """A step whose tokens are sampled and not yet recorded."""

    slices: list[Slice]
    sampled: dict[str, Sampled]  # by job: of the slices that reach their sequence's end and want a token


class Engine:
    """Runs many sequences on one model. Not thread-safe: whoever owns it calls everything from one thread."""

    def __init__(self, model: Model, kv: KVCache, info: EngineInfo, spec: EngineSpec, clock: Callable[[], float]) -> None:
        self.info = info
        self.scheduler = Scheduler(
            info.plan, spec.ageing_s, spec.watermark, spec.prefix_caching, eos_token_ids=frozenset(info.eos_token_ids)
        )
        self._model = model
        self._kv = kv
        self._clock = clock
        device = torch.device(info.plan.device)
        self._batch = BatchBuilder(info.plan, device)
        self._sampler = Sampler(info.vocab_size, device, model.pool)
        self._rng = random.SystemRandom()
        self._picked: list[Seq] = []  # of the last step: the sequences that wanted a token
        self._rows: list[Row] = []  # theirs
        self._num_steps = 0
        self._step_tokens = 0
        self._busy_s = 0.0
        self._forward_s = 0.0
        self._busy_since_s: float | None = None  # None: there was nothing to do

    # -- in

    def add(self, job: Job) -> None:
        """Queue a job. Raises InvalidRequest when it could never run."""
        worst = max(job.prompt, default=0)
        if worst >= self.info.vocab_size or min(job.prompt, default=0) < 0:
            raise InvalidRequest(f"prompt token id {worst} is outside the vocabulary of {self.info.vocab_size}", param="prompt")
        check_token_ids(job.sampling, job.bad_token_ids, self.info.vocab_size)
        seed = job.sampling.seed
        self.scheduler.add(job, self._clock(), self._rng.getrandbits(62) if seed is None else seed)

    def abort(self, job_id: str) -> Output | None:
        """End a job, whether it waits or runs, and return its last output. None for an unknown id: it may just have finished."""
        sequence = self.scheduler.abort(job_id)
        if not self.has_work:
            self._busy_since_s = None
        return None if sequence is None else Output(id=job_id, finish_reason="abort", use=use_of(sequence))

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    # -- one step

    def step(self) -> tuple[Output, ...]:
        """Compute one step for the sequences that the scheduler picks and return what it produced."""
        started = self._clock()
        slices = self.scheduler.plan(started)
        if not slices:
            raise Bug(f"{self.scheduler.num_waiting} sequences wait and none can run")
        held = holdings(self.scheduler.running)
        launched = self._launch(slices)
        reached = self._commit(launched)
        divide(self._account(started), slices, held)
        return tuple(self._output(sequence, launched.sampled.get(sequence.job.id)) for sequence in reached)

    @torch.inference_mode()
    def _launch(self, slices: list[Slice]) -> Launched:
        inputs = self._batch.build(slices)
        before = self._clock()
        hidden = self._model.forward(inputs.token_ids, inputs.attention, self._kv)
        self._forward_s += self._clock() - before
        self._score_prompts(slices, inputs, hidden)  # first: the next call of the model may overwrite its last logits
        picked = [(s.sequence, row) for s, row in zip(slices, inputs.last_rows, strict=True) if s.reaches_end and s.sequence.max_tokens]
        if not picked:
            return Launched(slices, {})
        before = self._clock()
        logits = self._model.logits(hidden if len(picked) == len(hidden) else hidden[[row for _, row in picked]])
        self._forward_s += self._clock() - before
        sampled = self._sampler.sample(logits, self._rows_of([sequence for sequence, _ in picked]))
        return Launched(slices, {sequence.job.id: chosen for (sequence, _), chosen in zip(picked, sampled, strict=True)})

    def _commit(self, launched: Launched) -> list[Seq]:
        """Record a step; the sequences whose last known token it computed."""
        reached = [s.sequence for s in launched.slices if s.reaches_end]
        self.scheduler.commit(launched.slices, {job_id: chosen.token_id for job_id, chosen in launched.sampled.items()})
        self._num_steps += 1
        self._step_tokens = sum(s.count for s in launched.slices)
        return reached

    def _account(self, started_s: float) -> float:
        """Count the time since the last step ended, while there is work, or else since this one started; how much it was."""
        now = self._clock()
        step_s = now - (started_s if self._busy_since_s is None else self._busy_since_s)
        self._busy_s += step_s
        self._busy_since_s = now if self.has_work else None
        return step_s

    def _rows_of(self, picked: list[Seq]) -> list[Row]:
        """Made anew only when others are picked, or when one of them may end from now on."""
        if picked != self._picked or any(row.forbidden and row.num_output >= row.sampling.min_tokens for row in self._rows):
            self._picked, self._rows = picked, [self._row(sequence) for sequence in picked]
        return self._rows

    def _row(self, sequence: Seq) -> Row:
        sampling = sequence.job.sampling
        held_back = sequence.num_output < sampling.min_tokens
        return Row(
            key=sequence,
            sampling=sampling,
            seed=sequence.seed,
            tokens=sequence.tokens,
            num_prompt=sequence.num_prompt,
            forbidden=(*self.info.eos_token_ids, *sampling.stop_token_ids) if held_back else (),
            bad_token_ids=sequence.job.bad_token_ids,
        )

    def _output(self, sequence: Seq, chosen: Sampled | None) -> Output:
        first = sequence.num_output <= 1
        told = sequence.finish_reason is not None or sequence.num_output % USE_EVERY == 1
        if chosen is not None and chosen.score is None and not first and not told:
            return Output(id=sequence.job.id, token_ids=(chosen.token_id,))  # as most are
        stopped_by_token = chosen is not None and sequence.finish_reason == "stop"
        return Output(
            id=sequence.job.id,
            token_ids=() if chosen is None else (chosen.token_id,),
            scores=None if chosen is None or chosen.score is None else (chosen.score,),
            prompt_scores=tuple(sequence.prompt_scores) if first and sequence.prompt_scores else None,
            finish_reason=sequence.finish_reason,
            stop_token_id=chosen.token_id if chosen is not None and stopped_by_token else None,
            num_cached_tokens=sequence.num_cached if first else 0,
            queue_s=sequence.first_slice_s - sequence.arrival_s if first and sequence.first_slice_s is not None else 0.0,
            use=use_of(sequence) if told else None,
        )

    def _score_prompts(self, slices: Sequence[Slice], inputs: StepInputs, hidden: Tensor) -> None:
        """Log-probabilities of the prompt tokens that this step's positions predict, for the sequences that ask."""
        for piece, last in zip(slices, inputs.last_rows, strict=True):
            sequence = piece.sequence
            num_top = sequence.job.sampling.prompt_logprobs
            if num_top is None:
                continue
            if not sequence.prompt_scores:
                sequence.prompt_scores.append(None)
            done = len(sequence.prompt_scores)
            first_row = last + 1 - piece.count
            targets = range(max(piece.start + 1, done), min(piece.stop + 1, sequence.num_prompt))
            for begin in range(targets.start, targets.stop, PROMPT_SCORE_ROWS):
                end = min(begin + PROMPT_SCORE_ROWS, targets.stop)
                rows = hidden[first_row + begin - 1 - piece.start : first_row + end - 1 - piece.start]
                sequence.prompt_scores += self._sampler.score(self._model.logits(rows), sequence.tokens[begin:end], num_top)

    # -- out

    def stats(self) -> EngineStats:
        scheduler, counters = self.scheduler, self.scheduler.counters
        return EngineStats(
            num_running=len(scheduler.running),
            num_waiting=scheduler.num_waiting,
            kv_usage=scheduler.kv_usage,
            num_steps=self._num_steps,
            num_preemptions=counters.preemptions,
            prefix_queries=counters.prefix_queries,
            prefix_hits=counters.prefix_hits,
            prompt_tokens=counters.prompt_tokens,
            generation_tokens=counters.generation_tokens,
            step_tokens=self._step_tokens,
            busy_s=self._busy_s,
            forward_s=self._forward_s,
        )

    def audit(self) -> None:
        """Raise `Bug` unless every block and sequence is accounted for."""
        self.scheduler.audit()
