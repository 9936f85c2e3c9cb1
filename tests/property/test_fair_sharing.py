"""Accounts share a full engine by the tokens that they were served, whatever each one sends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan

from penstock.core.types import Sampling
from penstock.engine.fair import OUTPUT_WEIGHT
from penstock.engine.messages import Job
from penstock.engine.scheduler import Scheduler

EOS = 0
LONGEST = 24  # tokens of a prompt, and of an answer


class Crowd:
    """A scheduler that is never idle, and how much of it each account got, in weighted tokens."""

    def __init__(self, **sizes: int) -> None:
        self.scheduler = Scheduler(plan(**sizes), prefix_caching=False)
        self.served: Counter[str] = Counter()
        self.now_s = 0
        self._serial = 0

    def add(self, account: str, prompt: int, answer: int, priority: int = 0) -> str:
        self._serial += 1
        sampling = Sampling(max_tokens=answer)
        job = Job(id=f"{self._serial}", prompt=(self._serial,) * prompt, sampling=sampling, account=account, priority=priority)
        self.scheduler.add(job, self.now_s)
        return job.id

    def step(self) -> list[str]:
        """One step; the jobs that got a token."""
        self.now_s += 1
        slices = self.scheduler.plan(self.now_s)
        for piece in slices:
            is_prompt = piece.start < piece.sequence.num_prompt
            self.served[piece.sequence.job.account] += piece.count if is_prompt else OUTPUT_WEIGHT * piece.count
        self.scheduler.commit(slices, {s.sequence.job.id: EOS + 1 for s in slices if s.reaches_end})
        return [s.sequence.job.id for s in slices]

    def until_runs(self, job_id: str) -> int:
        """Steps until a job gets its first token."""
        return next(number for number in range(1000) if job_id in self.step())


def flood(crowd: Crowd, steps: int, **senders: Callable[[], tuple[int, int]]) -> None:
    """Run, while every account always has sequences that wait."""
    for _ in range(steps):
        waiting = Counter(sequence.job.account for sequence in crowd.scheduler._waiting)
        for account, sizes in senders.items():
            for _ in range(10 - waiting[account]):
                crowd.add(account, *sizes())
        crowd.step()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(2, 32))
@pytest.mark.feature("fair sharing", "continuous batching", "chunked prefill")
def test_two_that_always_wait_are_never_far_apart(seed: int, max_num_seqs: int, max_step_tokens: int) -> None:
    """The bound of the paper: twice the most that a batch holds, here of weighted tokens, and the prompts under way."""
    rng = random.Random(seed)
    crowd = Crowd(max_num_seqs=max_num_seqs, max_step_tokens=max_step_tokens, num_blocks=1024)
    bound = 2 * max_num_seqs * (OUTPUT_WEIGHT + 1) * LONGEST
    for _ in range(20):
        flood(
            crowd, 10,
            short=lambda: (rng.randint(1, 3), rng.randint(1, 4)),
            long=lambda: (rng.randint(12, LONGEST), rng.randint(12, LONGEST)),
        )  # fmt: skip
        assert abs(crowd.served["short"] - crowd.served["long"]) <= bound


def test_requests_do_not_buy_tokens() -> None:
    """Who sends ten times as many requests gets no more than who sends one at a time, as long as that one is there."""
    crowd = Crowd(max_num_seqs=2)
    for _ in range(400):
        crowd.add("greedy", 8, 8)
    for _ in range(100):
        crowd.add("modest", 8, 8)
    for _ in range(300):
        crowd.step()
    assert 0.9 < crowd.served["modest"] / crowd.served["greedy"] < 1.1


def test_a_newcomer_passes_a_backlog() -> None:
    crowd = Crowd(max_num_seqs=1)
    for _ in range(100):
        crowd.add("greedy", 4, 4)
    for _ in range(10):
        crowd.step()
    assert crowd.until_runs(crowd.add("newcomer", 4, 4)) < 10
    alone = Crowd(max_num_seqs=1)
    for _ in range(100):
        alone.add("greedy", 4, 4)
    assert alone.until_runs(alone.add("greedy", 4, 4)) >= 400


def test_a_pause_earns_nothing() -> None:
    """Who was away comes back level with the others; else it would have the engine to itself for as long as it was away."""
    crowd = Crowd(max_num_seqs=1)
    sizes = (4, 4)
    crowd.add("away", *sizes)
    flood(crowd, 200, busy=lambda: sizes)
    before = crowd.served.copy()
    flood(crowd, 200, busy=lambda: sizes, away=lambda: sizes)
    got = crowd.served - before
    assert 0.8 < got["away"] / got["busy"] < 1.25


def test_a_level_of_priority_doubles_the_share() -> None:
    crowd = Crowd(max_num_seqs=1)
    for _ in range(300):
        crowd.add("plain", 4, 4)
        crowd.add("better", 4, 4, priority=-1)
    for _ in range(600):
        crowd.step()
    assert 1.8 < crowd.served["better"] / crowd.served["plain"] < 2.2


def test_within_an_account_priority_decides_as_ever() -> None:
    crowd = Crowd(max_num_seqs=1)
    crowd.add("one", 4, 4)
    crowd.step()
    crowd.add("one", 4, 4, priority=1)
    urgent = crowd.add("one", 4, 4, priority=-1)
    assert crowd.until_runs(urgent) < 6


@pytest.mark.feature("fair sharing", "preemption")
def test_shares_stay_even_where_memory_is_short() -> None:
    """Sequences are preempted and computed again, which their accounts do not pay for."""
    crowd = Crowd(max_num_seqs=4, num_blocks=14)
    served: Counter[str] = Counter()
    for _ in range(100):
        crowd.add("a", 8, 16)
        crowd.add("b", 8, 16)
    for _ in range(600):
        served.update(crowd.scheduler._live[job_id].job.account for job_id in crowd.step() if job_id in crowd.scheduler._live)
    assert crowd.scheduler.counters.preemptions > 0
    assert 0.8 < served["a"] / served["b"] < 1.25
