"""What a trained router recovers of the gap between two models: on new prompts, and on subjects that it has not seen.

    python benchmarks/router.py --table PROMPTS/routellm/mmlu.tar.gz
    python benchmarks/router.py --table PROMPTS/llmrouter/train.json.gz --folds 3

A table is RouteLLM's (a folder or .tar.gz of CSV files), LLMRouter's or Penstock's own (benchmarks/routing_tables.py). Repeatable:
tables of the same two models are put together. Everything is cross-validated, and whatever a router chooses of itself it chooses
within its training part; the peers (benchmarks/routing_peers.py) learn and are tested on the very same folds. Unseen subjects are
tested over several partitions. Intervals are 95 % by bootstrap: over prompts, and for unseen subjects over subjects.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from routing_peers import peers
from routing_tables import rows_of

from penstock.app.learning import chosen_pair
from penstock.cli.router import lines
from penstock.core.errors import MissingExtra
from penstock.embed import open_vectors
from penstock.router.curve import Part, apgr, versus
from penstock.router.estimator import Prompts, prompts_of
from penstock.router.evaluation import ORACLE, OWN, assessed, held_out, report
from penstock.router.table import Table, make_table

Floats = NDArray[np.float32]

TEXTS = 256  # that a thread embeds in one go


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, action="append", required=True)
    parser.add_argument("--encoder", choices=("minilm", "static", "none"), default="static", help="the classifier's")
    parser.add_argument("--peers", choices=("minilm", "static"), action="append", help="their encoders, repeatable; by default both")
    parser.add_argument("--weak")
    parser.add_argument("--strong")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--partitions", type=int, default=3, help="of the subjects, when they are what is unseen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    table = chosen_pair(make_table([row for path in arguments.table for row in rows_of(path)]), arguments.weak, arguments.strong)
    groups = len(set(table.groups))
    print(f"{len(table.prompts):,} prompts of {groups} groups: {table.models[0]} or {table.models[1]}", file=sys.stderr)
    started = time.perf_counter()
    told = {"benchmark": "router", "models": list(table.models), "prompts": len(table.prompts), "encoder": arguments.encoder}
    with ThreadPoolExecutor(arguments.threads) as pool:
        spaces = embedded(table, {*(arguments.peers or ("static", "minilm")), arguments.encoder}, pool)
        print(f"embedded in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        given = prompts_of(table.prompts, spaces[arguments.encoder])
        bench = Bench(table, given, {name: vectors for name, vectors in spaces.items() if name != "none"})
        for unseen in (False, True) if groups >= 2 * arguments.folds else (False,):
            seeds = range(arguments.seed, arguments.seed + (arguments.partitions if unseen else 1))
            name = f"unseen subjects, {len(seeds)} partitions" if unseen else "in distribution"
            parts = bench.parts(pool, arguments.folds, seeds, unseen=unseen)
            told |= {f"{key}{'_unseen' if unseen else ''}": value for key, value in shown(name, table, parts).items()}
            print(f"{name} after {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(json.dumps(told | {"seconds": round(time.perf_counter() - started)}))


def embedded(table: Table, encoders: set[str], pool: Executor) -> dict[str, Floats]:
    """Of each encoder that is installed the vectors of all prompts, each prompt once."""
    spaces = {"none": np.zeros((len(table.prompts), 0), dtype=np.float32)}
    order = sorted(range(len(table.prompts)), key=lambda place: len(table.prompts[place]))  # little padding
    batches = [order[start : start + TEXTS] for start in range(0, len(order), TEXTS)]
    for which in sorted(encoders - {"none"}):
        try:
            vectors = open_vectors("minilm" if which == "minilm" else "static")
        except MissingExtra as missing:
            print(f"{missing}: without it", file=sys.stderr)
            continue
        made = pool.map(lambda batch, vectors=vectors: vectors.now([table.prompts[place] for place in batch]), batches)
        spaces[which] = np.concatenate(list(made))[np.argsort(order)]
    return spaces


class Bench(msgspec.Struct, frozen=True):
    """A table, and what is read of its prompts."""

    table: Table
    given: Prompts
    spaces: dict[str, Floats]  # the peers': vectors of all prompts, by encoder

    def parts(self, pool: Executor, folds: int, seeds: Sequence[int], *, unseen: bool) -> list[Part]:
        """One for each fold of each partition."""

        def tried(job: tuple[int, tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Part:
            seed, fold = job
            part = assessed(self.table, self.given, fold, unseen=unseen, seed=seed)
            part = msgspec.structs.replace(part, scores=part.scores | peers(self.spaces, self.table.scores, *fold))
            kind = f"unseen subjects, partition {seed}" if unseen else "new prompts"
            print(f"{kind}: {len(fold[1]):,} tested, {apgr(part.scores[OWN], part.gain):.3f}", file=sys.stderr)
            return part

        jobs = [(seed, fold) for seed in seeds for fold in held_out(self.table, unseen=unseen, folds=folds, seed=seed)]
        return list(pool.map(tried, jobs))


def shown(name: str, table: Table, parts: list[Part]) -> dict[str, object]:
    """Prints the figures, and returns those of the JSON line."""
    found = report(table, parts)
    own = found.worth[OWN]
    others = {name: worth.apgr for name, worth in found.worth.items() if name not in (OWN, ORACLE)}
    best = max(others, key=lambda name: others[name])
    against = versus(parts, OWN, best)
    print("\n".join(lines(name, table, found)))
    print(f"classifier against {best}: {against.more:+.3f} ({against.low:+.3f} to {against.high:+.3f}), p = {against.p:.4f}", flush=True)
    return {
        "apgr": round(own.apgr, 4),
        "interval": [round(own.low, 4), round(own.high, 4)],
        "cpt50": own.cpt50 and round(own.cpt50, 3),
        "cpt80": own.cpt80 and round(own.cpt80, 3),
        "baselines": {name: round(area, 4) for name, area in others.items()},
        "best_baseline": best,
        "more": [round(figure, 4) for figure in (against.more, against.low, against.high)],
        "p": round(against.p, 5),
    }


if __name__ == "__main__":
    main()
