"""Random workloads on the real scheduler, with a simulated memory that notices any mix-up of blocks.

The simulation writes (salt, tokens so far) into the blocks of each slice, and before a slice runs it checks that the
blocks before it hold exactly what the sequence believes was computed: a block lost, shared wrongly, reused too early
or found across tenants shows up as foreign content.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan

from penstock.core.types import Sampling
from penstock.engine.messages import Job, MemoryPlan
from penstock.engine.scheduler import Scheduler
from penstock.engine.sequence import Slice

EOS = 0


@dataclass
class Workload:
    plan: MemoryPlan
    jobs: list[tuple[int, Job]]  # (step at which it arrives, job)
    aborts: dict[str, int]  # id -> step
    prefix_caching: bool
    watermark: float
    rng: random.Random


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    rng = random.Random(draw(st.integers(0, 2**32)))
    block_size, num_blocks = draw(st.sampled_from([1, 2, 4])), draw(st.integers(4, 24))
    memory = plan(
        block_size=block_size,
        num_blocks=num_blocks,
        max_model_len=block_size * num_blocks,
        max_step_tokens=draw(st.integers(1, 24)),
        max_num_seqs=draw(st.integers(1, 6)),
    )
    room = memory.max_model_len
    prefixes = [[rng.randint(1, 3) for _ in range(room)] for _ in range(2)]
    jobs, aborts = [], {}
    for index in range(draw(st.integers(1, 10))):
        shared = rng.choice(prefixes)[: rng.randint(0, room - 2)]
        prompt = (shared + [rng.randint(1, 9) for _ in range(rng.randint(1, 6))])[: room - 1]
        sampling = Sampling(
            max_tokens=rng.randint(0, room - len(prompt)),
            min_tokens=rng.choice([0, 0, 2]),
            ignore_eos=rng.random() < 0.3,
            prompt_logprobs=rng.choice([None, None, None, 0]),
        )
        priority, salt, account = rng.choice([-2, 0, 0, 3]), rng.choice(["", "tenant"]), rng.choice(["", "", "a", "b"])
        job = Job(id=str(index), prompt=tuple(prompt), sampling=sampling, salt=salt, priority=priority, account=account)
        jobs.append((rng.randint(0, 8), job))
        if rng.random() < 0.25:
            aborts[str(index)] = rng.randint(0, 60)
    return Workload(memory, jobs, aborts, draw(st.booleans()), draw(st.sampled_from([0.0, 0.01, 0.3])), rng)


@dataclass
class Simulation:
    """Runs a workload to its end; `content[block]` is what the block's slots hold."""

    workload: Workload
    scheduler: Scheduler = field(init=False)
    content: list[list[object]] = field(init=False)
    finished: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.workload.plan
        self.scheduler = Scheduler(
            plan,
            ageing_s=4.0,
            watermark=self.workload.watermark,
            prefix_caching=self.workload.prefix_caching,
            eos_token_ids=frozenset({EOS}),
        )
        self.content = [[None] * plan.block_size for _ in range(plan.num_blocks)]

    def run(self) -> None:
        to_come = sorted(self.workload.jobs, key=lambda entry: entry[0])
        tokens = sum(len(job.prompt) + (job.sampling.max_tokens or 0) for _, job in to_come)
        step = 0
        while to_come or self.scheduler.has_work:
            while to_come and to_come[0][0] <= step:
                self.scheduler.add(to_come.pop(0)[1], now_s=step)
            for job_id, when in self.workload.aborts.items():
                if when == step and self.scheduler.abort(job_id):
                    self.finished[job_id] = "abort"
            self.scheduler.audit()
            if self.scheduler.has_work:
                self.step(step)
            step += 1
            assert step <= 100 + 10 * tokens, "a sequence starves"

    def step(self, now_s: float) -> None:
        slices = self.scheduler.plan(now_s)
        self.scheduler.audit()
        assert slices, "work waits and nothing was planned"
        assert sum(s.count for s in slices) <= self.workload.plan.max_step_tokens
        assert len(self.scheduler.running) <= self.workload.plan.max_num_seqs
        assert len({s.sequence.job.id for s in slices}) == len(slices)
        for piece in slices:
            self.compute(piece)
        sampled = {s.sequence.job.id: self.workload.rng.randint(0, 20) for s in slices if s.reaches_end}
        for sequence in self.scheduler.commit(slices, sampled):
            assert sequence.finish_reason is not None
            assert sequence.job.id not in self.finished
            self.finished[sequence.job.id] = sequence.finish_reason
            self.check_output(sequence.job, sequence.tokens[sequence.num_prompt :], sequence.finish_reason)
        self.scheduler.audit()

    def compute(self, piece: Slice) -> None:
        sequence, size = piece.sequence, self.workload.plan.block_size
        assert piece.start == sequence.num_computed
        for position in range(piece.stop):
            expected = (sequence.job.salt, tuple(sequence.tokens[: position + 1]))
            block = sequence.blocks[position // size]
            if position < piece.start:
                assert self.content[block.id][position % size] == expected, "a block holds foreign content"
            else:
                assert block.refs == 1, "writing to a shared block"
                self.content[block.id][position % size] = expected

    def check_output(self, job: Job, output: list[int], reason: str) -> None:
        sampling = job.sampling
        assert len(output) <= (sampling.max_tokens or 0)
        if reason == "length":
            assert len(output) == sampling.max_tokens
        else:
            assert output[-1] == EOS and not sampling.ignore_eos and len(output) >= sampling.min_tokens


@settings(max_examples=2000, deadline=None)
@given(workloads())
def test_every_sequence_finishes_and_no_block_is_lost(workload: Workload) -> None:
    simulation = Simulation(workload)
    simulation.run()
    assert set(simulation.finished) == {job.id for _, job in workload.jobs}
    assert simulation.scheduler.kv_usage == 0.0
