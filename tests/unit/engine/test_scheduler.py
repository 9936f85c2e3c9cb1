"""Decisions of the scheduler that a user would notice."""

from __future__ import annotations

import pytest
from plans import plan

from penstock.core.errors import ContextTooLong, InvalidRequest
from penstock.core.types import Sampling
from penstock.engine.messages import Job
from penstock.engine.scheduler import Scheduler


def job(name: str, length: int, *, max_tokens: int = 4, priority: int = 0, salt: str = "", first: int = 1) -> Job:
    prompt = tuple(range(first, first + length))
    return Job(id=name, prompt=prompt, sampling=Sampling(max_tokens=max_tokens), priority=priority, salt=salt)


def step(scheduler: Scheduler, now_s: float = 0.0) -> dict[str, int]:
    """Run one step and return how many tokens each sequence computed."""
    slices = scheduler.plan(now_s)
    scheduler.commit(slices, {s.sequence.job.id: 99 for s in slices if s.reaches_end})
    scheduler.audit()
    return {s.sequence.job.id: s.count for s in slices}


def test_a_decode_runs_before_prompts_and_several_prompts_share_the_rest() -> None:
    scheduler = Scheduler(plan())
    scheduler.add(job("decode", 3), 0)
    assert step(scheduler) == {"decode": 3}
    scheduler.add(job("long", 40, first=100), 1)
    scheduler.add(job("short", 5, first=200), 2)
    assert step(scheduler, 2) == {"decode": 1, "short": 5, "long": 10}


def test_what_can_never_fit_is_refused_with_both_numbers() -> None:
    scheduler = Scheduler(plan())
    with pytest.raises(ContextTooLong, match=r"120 prompt tokens \+ max_tokens 20 = 140, the limit is max_model_len 128"):
        scheduler.add(job("big", 120, max_tokens=20), 0)
    small = Scheduler(plan(num_blocks=4))
    with pytest.raises(ContextTooLong, match="need 6 KV blocks, the engine has 4"):
        small.add(job("big", 20), 0)
    with pytest.raises(InvalidRequest, match="no tokens"):
        scheduler.add(job("none", 0), 0)


def test_priority_passes_a_recent_arrival_and_ageing_protects_an_old_one() -> None:
    scheduler = Scheduler(plan(max_num_seqs=1), ageing_s=5.0)
    scheduler.add(job("running", 2), 0)
    step(scheduler)
    scheduler.add(job("old", 2), 0)
    scheduler.add(job("recent", 2), 8)
    scheduler.add(job("urgent", 2, priority=-1), 9)
    order: list[str] = []
    while scheduler.has_work:
        order += [name for name in step(scheduler, 10) if name not in order]
    assert order == ["running", "old", "urgent", "recent"]


def test_the_second_of_two_equal_prompts_waits_for_the_first_instead_of_computing_it_again() -> None:
    scheduler = Scheduler(plan(max_step_tokens=64))
    scheduler.add(job("first", 33), 0)
    scheduler.add(job("second", 33), 0)
    assert step(scheduler) == {"first": 33}
    assert step(scheduler) == {"first": 1, "second": 1}


def test_those_who_wait_for_a_prefix_are_not_looked_up_again_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else planning would cost the number of waiting sequences times the length of their prefix, step after step."""
    scheduler = Scheduler(plan(max_step_tokens=4))
    for number in range(20):
        scheduler.add(job(f"{number}", 60), 0)
    step(scheduler)
    looked_up: list[int] = []
    match = scheduler.pool.match
    monkeypatch.setattr(scheduler.pool, "match", lambda *given: looked_up.append(1) or match(*given))
    for _ in range(5):
        step(scheduler)
    assert len(looked_up) <= 20, "once each where the block that they wait for has come, not 20 times a step"


def test_a_shared_prefix_is_computed_once_but_not_across_tenants() -> None:
    scheduler = Scheduler(plan(max_step_tokens=64))
    scheduler.add(job("a", 40, max_tokens=1), 0)
    step(scheduler)
    scheduler.add(job("same", 40, max_tokens=1), 0)
    scheduler.add(job("other", 40, max_tokens=1, salt="tenant"), 0)
    assert step(scheduler) == {"same": 4, "other": 40}


def test_memory_shortage_preempts_the_latest_and_it_still_finishes() -> None:
    scheduler = Scheduler(plan(num_blocks=6), watermark=0.0)
    scheduler.add(job("early", 8, max_tokens=12), 0)
    scheduler.add(job("late", 8, max_tokens=12, first=50), 1)
    ended = 0
    for now in range(100):
        if not scheduler.has_work:
            break
        ended += "late" in step(scheduler, now)
    assert scheduler.counters.preemptions > 0
    assert not scheduler.has_work
    assert scheduler.kv_usage == 0


def test_an_aborted_sequence_gives_its_blocks_back_at_once() -> None:
    scheduler = Scheduler(plan())
    scheduler.add(job("a", 40), 0)
    scheduler.add(job("waits", 40, first=300), 0)
    slices = scheduler.plan(0)
    assert scheduler.kv_usage > 0
    assert scheduler.abort("a")
    assert scheduler.abort("waits")
    assert not scheduler.abort("a")
    assert scheduler.kv_usage == 0
    assert scheduler.commit(slices, {}) == []  # the step was under way: nothing comes of it
    scheduler.audit()
