"""`penstock router calibrate`: from questions and two models to a file that a cascade can use."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest
from fakes.openai import openai_fake
from fakes.server import Answer

from penstock.cli import main
from penstock.router.confidence import NEVER, read_calibration

CONFIG = """
[embeddings]
enabled = false
[[upstreams]]
name = "small"
url = "{small}"
models = ["small"]
[[upstreams]]
name = "large"
url = "{large}"
models = ["large"]
"""


async def test_two_models_behind_a_config_are_asked_and_a_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    wrong_or_right = [Answer(tokens=("It", " is", " 42" if rng.random() < 0.6 else " 41")) for _ in range(210)]
    questions, out = tmp_path / "questions.jsonl", tmp_path / "made.json"
    questions.write_text("".join(json.dumps({"prompt": f"{n} + {42 - n}", "answer": "42"}) + "\n" for n in range(210)))
    async with openai_fake(*wrong_or_right) as small, openai_fake(Answer(tokens=("42",))) as large:
        (tmp_path / "penstock.toml").write_text(CONFIG.format(small=small.url, large=large.url))
        flags = ["--small", "small", "--large", "large", "--config", str(tmp_path / "penstock.toml"), "--out", str(out)]
        assert await asyncio.to_thread(main, ["router", "calibrate", str(questions), *flags]) == 0
    assert "large: 100.0%, of 210 answers" in capsys.readouterr().out
    made = read_calibration(out)
    assert (made.model, made.larger) == ("small", "large")
    assert made.trust_for(1.0) == NEVER  # nothing tells its right answers from the wrong ones


def test_questions_that_are_not_there_are_the_user_s_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["router", "calibrate", "nowhere.jsonl", "--small", "a", "--large", "b"]) == 2
    assert "nowhere.jsonl cannot be read" in capsys.readouterr().err
