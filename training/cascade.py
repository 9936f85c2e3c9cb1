"""The cascade's questions: held-out items by the curriculum's weights, in two halves that share no item, and a calibration of one.

    python -m training.cascade --small penstock-mini --large FOLDER --items 3000 --out src/penstock/builtin/penstock-mini.cascade.json

One half calibrates; `benchmarks/cascade.py` reports on the other. Which half an item is in depends on its key alone.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Literal

import msgspec
from msgspec.structs import replace

from penstock.app.calibration import Question, calibrated
from penstock.core.settings import Settings, resolve
from training.curriculum.dialogue import choose
from training.curriculum.turn import MINI, Grade, Turn, draw

Half = Literal["calibrate", "report"]
MIDI = "penstock-midi"


def half_of(key: str) -> Half:
    """On which side the item ``key`` is, the same on every machine."""
    return "calibrate" if hashlib.sha256(f"cascade:{key}".encode()).digest()[0] % 2 == 0 else "report"


def items(half: Half, count: int, seed: int) -> list[tuple[str, Question]]:
    """Distinct prompts of held-out items, each with the name of its task."""
    rng, found = Random(f"{seed}:{half}"), dict[str, tuple[str, Question]]()
    while len(found) < count:
        task = choose(rng)
        turn = draw(task, rng, "held_out")
        if half_of(turn.key) == half:
            found.setdefault(turn.user, (task.name, Question(turn.user, _grader(task.grade, turn))))
    return list(found.values())


def _grader(grade: Grade, turn: Turn) -> Callable[[str], bool]:
    """Either model may call itself by its own name."""
    return lambda reply: grade(turn, reply.strip().replace(MIDI, MINI))


def served(small: str, large: str) -> Settings:
    """Settings that serve both, each engine with one core."""
    settings = resolve(models=[small, large], file=None, environment={}, flags={})
    models = tuple(replace(model, engine=replace(model.engine, threads=1)) for model in settings.models)
    return replace(settings, models=models)


def main() -> None:
    """Parse the command line, ask both models, write the calibration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", default=MINI, help="a built-in name or a folder")
    parser.add_argument("--large", default=MIDI, help="a built-in name or a folder")
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    settings = served(given.small, given.large)
    small, large = (model.name for model in settings.models)
    questions = [question for _, question in items("calibrate", given.items, given.seed)]
    calibration = asyncio.run(calibrated(settings, small, large, questions))
    text = msgspec.json.format(msgspec.json.encode(replace(calibration, larger=MIDI if large not in (MINI, MIDI) else large)), indent=1)
    given.out.write_bytes(text + b"\n")
    print(msgspec.json.encode(calibration.measured).decode())
    for target in calibration.targets:
        print(f"{target.quality:6.1%} of {large}'s accuracy: trust {target.trust:.3f}, keeps {target.kept:.1%}")


if __name__ == "__main__":
    main()
