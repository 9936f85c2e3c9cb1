"""Conversations as JSON lines, one ``{"messages": […]}`` each: ``python -m training.conversations --split held_out --out FILE``.

For calibrating and evaluating the built-in models as their users would, with texts of your own in their place.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from training.curriculum.dialogue import Conversation, converse


def messages(conversation: Conversation) -> list[dict[str, str]]:
    """The whole conversation, the last answer included."""
    said = [] if conversation.system is None else [{"role": "system", "content": conversation.system}]
    for turn in conversation.turns:
        said += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]
    return said


def main() -> None:
    """Parse the command line, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("train", "held_out"), required=True)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rng = Random(given.seed)
    drawn = (converse(rng, rng.randint(1, 6), given.split) for _ in range(given.count))
    given.out.write_text("".join(json.dumps({"messages": messages(each)}) + "\n" for each in drawn))


if __name__ == "__main__":
    main()
