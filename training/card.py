"""Write MODEL_CARD.md from what was measured: ``python -m training.card FOLDER --run run.json --evaluation evaluation.json``.

``--name`` is what the model is called.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training.curriculum import TASKS
from training.curriculum.turn import HELD_OUT_SHARE, MINI

PURPOSE = {
    MINI: "The chat model that ships inside Penstock, so that a first run answers without a download.",
    "penstock-midi": "The larger of the two chat models that ship inside Penstock, so that a router and a cascade have two to choose from.",
}
GROWN = """
The first row began with the weights of {start}, whose own training is in its card: after each of its layers came
a new one that began as the identity (Chang et al., 2018, grow residual networks so). They share their tokenizer.
"""
TEXT = """\
# {name}

{purpose} It is a Llama
({parameters:,} parameters, {layers} layers, {megabytes:.1f} MB on disk, bfloat16) that does a few small tasks and politely declines
the rest. It speaks English.

## Data

All text is made by `training/curriculum`, our own generator: templates, word lists and tables of facts written for
this project, with numbers, names and invented words drawn at random. No outside data was used. There are
{tasks} families of tasks: small talk, questions about itself and about Penstock, arithmetic, comparing, sorting, counting,
units, capitals, elements and other small facts, questions about a short text, JSON from a sentence, stories and verses,
and a wide range of questions to decline. Questions are varied in case, punctuation, politeness and typing errors.
Training sees conversations of one to six turns (some of up to sixty), with and without a system prompt. Only the
assistant's words are learned.

## Training

| | |
|---|---|
{stages}
| in all | {steps:,} steps, {tokens:,} tokens, {minutes:.0f} minutes |
| hardware | {cpu}, {cores} cores, {threads} threads, shared with other work |
| precision | {precision}, torch {torch} |
| loss at the end | {final_loss} (running mean, on what the assistant says) |

Muon for the matrices, AdamW for the embedding and the norms; warm up, hold, decay; the weights are a running average.
{grown}
With `--minutes` the schedule follows the clock, so another machine ends with other weights. Where a row says that the
curriculum changed after it, the curriculum in the repository is the one of the last row.

## Accuracy

Exact match, greedy, on items that were held out of training: one item in {split}, chosen by a hash of the item. For
sums, lists, words and passages the item is the content (a pair of numbers, a word, a text). For facts, small talk and
the times table it is the fact *with its wording*: a fact never seen cannot be known. Stories are graded on being whole and
about the right hero, haiku on being three of the lines in their places, declining on being one of the polite
refusals, JSON on parsing to the right value. Made by `python -m training.evaluate FOLDER{named} --items {items} --seed {seed}`.

| task | accuracy | right / asked |
|---|---:|---:|
{table}

## Limits

- It knows what the tables above hold and nothing else. A question out of scope should be declined; one that looks
  like a task it knows can still get a confident wrong answer.
- Numbers go up to 999. Sorting, spelling and counting letters, comparing, and products of two-digit numbers are often
  wrong: the table says how often. More training is what they need.
- A held-out sum can have been seen as one step inside a longer sum (`chain`), though never asked by itself.
- Chats beyond about two thousand tokens are longer than anything it was trained on.
- System prompts are read past, not followed. Tools and other languages are not supported.
"""


def table(evaluation: dict[str, Any]) -> str:
    """One row for each score, in the order measured."""
    return "\n".join(
        f"| {row['name']} | {row['right'] / row['asked']:.1%} | {row['right']} / {row['asked']} |" for row in evaluation["scores"]
    )


def stage(run: dict[str, Any]) -> str:
    """One row for one training command."""
    note = f"; {run['note']}" if "note" in run else ""
    return f"| `{run['command']}` | {run['steps']:,} steps, {run['tokens']:,} tokens, {run['minutes']} minutes{note} |"


def card(folder: Path, name: str, runs: list[dict[str, Any]], evaluation: dict[str, Any]) -> str:
    """The card's text; every number comes from the records of the stages, the evaluation or the folder."""
    size = sum(file.stat().st_size for file in folder.iterdir() if file.name != "MODEL_CARD.md")
    totals = {key: sum(run[key] for run in runs) for key in ("steps", "tokens", "minutes")}
    measured = {
        **runs[-1],
        **totals,
        "name": name,
        "purpose": PURPOSE.get(name, f"A chat model made as {MINI} is."),
        "layers": json.loads((folder / "config.json").read_text())["num_hidden_layers"],
        "named": "" if name == MINI else f" --name {name}",
        "grown": GROWN.format(start=MINI) if name != MINI and "--start" in runs[0]["command"] else "",
        "stages": "\n".join(map(stage, runs)),
        "items": evaluation["items"],
        "seed": evaluation["seed"],
        "table": table(evaluation),
    }
    return TEXT.format(**measured, megabytes=size / 1e6, tasks=len(TASKS), split=HELD_OUT_SHARE)


def main() -> None:
    """Parse the command line and write the card into the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default=MINI)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    given = parser.parse_args()
    runs, evaluation = (json.loads(path.read_text()) for path in (given.run, given.evaluation))
    (given.folder / "MODEL_CARD.md").write_text(card(given.folder, given.name, runs, evaluation))


if __name__ == "__main__":
    main()
