"""Accuracy on held-out items: ``python -m training.evaluate FOLDER --out evaluation.json``, with a table printed.

``--name`` is what the model was trained to call itself.

Each task is asked ``--items`` items the training never saw, as the first turn of a chat and greedily; three more
rows measure the same after other turns, behind a system prompt, and sampled at temperature 0.7.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from training.curriculum import TASKS
from training.curriculum.dialogue import Conversation, converse, system_prompt
from training.curriculum.turn import MINI, Grade, Task, Turn, called, draw, exact
from training.reply import Answerer, Messages

BATCH = 50
SAMPLED = "at temperature 0.7"


@dataclass(frozen=True, slots=True)
class Score:
    """How many of the items asked were answered right."""

    name: str
    right: int
    asked: int

    @property
    def share(self) -> float:
        return self.right / self.asked


@dataclass(frozen=True, slots=True)
class Probe:
    """A conversation to put to the model, and the turn its reply is judged by."""

    messages: Messages
    turn: Turn
    grade: Grade


def messages_of(conversation: Conversation) -> Messages:
    """The conversation up to its last question."""
    messages: Messages = []
    if conversation.system is not None:
        messages.append({"role": "system", "content": conversation.system})
    for turn in conversation.turns:
        messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]
    return messages[:-1]


def single(task: Task, rng: Random, count: int) -> list[Probe]:
    """Distinct held-out items of one task; fewer where the task has fewer."""
    probes: dict[str, Probe] = {}
    for _ in range(count * 20):
        turn = draw(task, rng, "held_out")
        probes.setdefault(turn.key, Probe(messages_of(Conversation(None, (turn,))), turn, task.grade))
        if len(probes) == count:
            break
    return list(probes.values())


def mixed(rng: Random, count: int, turns: int, system: bool) -> list[Probe]:
    """Conversations of held-out items of all tasks, judged by their last turn."""
    tasks = {task.name: task for task in TASKS}
    probes: list[Probe] = []
    while len(probes) < count:
        conversation = converse(rng, turns, "held_out")
        conversation = Conversation(system_prompt(rng) if system else None, conversation.turns)
        last = conversation.turns[-1]
        name = "story" if last.task == "another" and last.answer.startswith("Once") else last.task
        grade = tasks[name].grade if name in tasks else exact
        probes.append(Probe(messages_of(conversation), last, grade))
    return probes


def score(name: str, probes: list[Probe], answerer: Answerer, temperature: float = 0.0, show: int = 0) -> Score:
    """Ask all probes; print up to ``show`` wrong replies."""
    probes = sorted(probes, key=lambda probe: len(probe.messages[-1]["content"]))
    right = 0
    for start in range(0, len(probes), BATCH):
        part = probes[start : start + BATCH]
        for probe, reply in zip(part, answerer([p.messages for p in part], temperature), strict=True):
            good = probe.grade(probe.turn, reply)
            right += good
            if not good and show > 0:
                show -= 1
                print(f"    {name}: {probe.turn.user!r} -> {reply!r}, not {probe.turn.answer!r}")
    return Score(name, right, len(probes))


def renamed(probe: Probe, name: str) -> Probe:
    """The same put to the model called ``name``."""
    turn = probe.turn
    turn = replace(turn, answer=called(turn.answer, name), also=tuple(called(answer, name) for answer in turn.also))
    return Probe([{**message, "content": called(message["content"], name)} for message in probe.messages], turn, probe.grade)


def rows(items: int, seed: int) -> Iterator[tuple[str, list[Probe]]]:
    """Every row of the table with what it asks."""
    for task in TASKS:
        yield task.name, single(task, Random(f"{seed}:{task.name}"), items)
    rng = Random(seed)
    yield "last of 2-6 turns", [p for n in range(2, 7) for p in mixed(rng, items // 2, n, False)]
    yield "with a system prompt", mixed(rng, items * 2, 1, True)
    yield SAMPLED, mixed(rng, items * 2, 1, False)


def evaluate(answerer: Answerer, given: argparse.Namespace) -> Iterator[Score]:
    """Every row of the table, measured."""
    for row, probes in rows(given.items, given.seed):
        yield score(row, [renamed(probe, given.name) for probe in probes], answerer, 0.7 if row == SAMPLED else 0.0, given.show)


def main() -> None:
    """Parse the command line, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default=MINI)
    parser.add_argument("--items", type=int, default=100, help="for each task")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="wrong replies to print for each task")
    parser.add_argument("--out", type=Path, required=True, help="file for the numbers")
    given = parser.parse_args()
    scores = []
    for row in evaluate(Answerer(given.folder), given):
        print(f"{row.name:24}{row.share:7.1%}  {row.right}/{row.asked}", flush=True)
        scores.append({"name": row.name, "right": row.right, "asked": row.asked})
    record = {"items": given.items, "seed": given.seed, "scores": scores}
    given.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
