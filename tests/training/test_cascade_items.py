"""What a cascade is calibrated on and what is reported of it share no item, and none was trained on."""

from __future__ import annotations

from training.cascade import half_of, items
from training.curriculum import TASKS


def test_the_halves_share_no_prompt_and_are_the_same_every_time() -> None:
    calibrate, report = items("calibrate", 150, 1), items("report", 150, 1)
    prompts = {question.prompt for _, question in calibrate}
    assert len(prompts) == 150
    assert prompts.isdisjoint(question.prompt for _, question in report)
    assert [question.prompt for _, question in items("report", 150, 1)] == [question.prompt for _, question in report]
    assert {name for name, _ in report} <= {task.name for task in TASKS}


def test_which_half_an_item_is_in_depends_on_its_key_alone() -> None:
    halves = [half_of(f"add:{n}:1") for n in range(400)]
    assert 150 < halves.count("report") < 250
    assert halves == [half_of(f"add:{n}:1") for n in range(400)]
