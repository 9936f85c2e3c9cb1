"""A model of another name is asked, graded and described by that name."""

from __future__ import annotations

import json
from pathlib import Path

from training.card import card
from training.curriculum.identity import identity
from training.curriculum.turn import MINI, Turn, exact
from training.evaluate import Probe, renamed, rows

RUN = {
    "steps": 1000,
    "tokens": 5_000_000,
    "minutes": 10.0,
    "parameters": 7_000_000,
    "final_loss": 0.1,
    "cpu": "a CPU",
    "cores": 2,
    "threads": 2,
    "precision": "bfloat16",
    "torch": "2.9",
}
EVALUATION = {"items": 100, "seed": 1, "scores": [{"name": "add", "right": 97, "asked": 100}]}


def run(command: str) -> dict[str, object]:
    return {**RUN, "command": f"python -m training.train {command} --out FOLDER"}


def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 12}))
    return tmp_path


def test_who_are_you_is_answered_by_the_models_own_name() -> None:
    asked = [{"role": "system", "content": f"You are {MINI}."}, {"role": "user", "content": f"Are you {MINI}?"}]
    probe = renamed(Probe(asked, Turn("identity", asked[1]["content"], f"Yes, I am {MINI}.", "k", (f"I am {MINI}.",)), exact), "other")
    assert [message["content"] for message in probe.messages] == ["You are other.", "Are you other?"]
    assert all(probe.grade(probe.turn, reply) for reply in ("Yes, I am other.", "I am other."))
    assert not probe.grade(probe.turn, f"Yes, I am {MINI}.")


def test_every_task_is_asked_for_whatever_the_name() -> None:
    asked = [(row, renamed(probe, "other")) for row, probes in rows(2, 1) for probe in probes]
    assert identity.__name__ in {row for row, _ in asked}
    assert not any(MINI in message["content"] for _, probe in asked for message in probe.messages)


def test_a_grown_models_card_says_what_it_grew_from(tmp_path: Path) -> None:
    text = card(folder(tmp_path), "penstock-midi", [run("--name penstock-midi --start FOLDER")], EVALUATION)
    assert text.startswith("# penstock-midi\n")
    assert "12 layers" in text and "began with the weights of penstock-mini" in text
    assert "evaluate FOLDER --name penstock-midi --items 100" in text and "| add | 97.0% | 97 / 100 |" in text


def test_the_first_models_card_has_no_other_name(tmp_path: Path) -> None:
    text = card(folder(tmp_path), MINI, [run("--seed 0"), run("--seed 1 --start FOLDER")], EVALUATION)
    assert text.startswith(f"# {MINI}\n") and "--name" not in text and "began with" not in text
    assert "in all | 2,000 steps" in text
