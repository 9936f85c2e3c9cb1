"""What a trained router recovers of the gap between two models: on new prompts, and on subjects that it has not seen.

    python benchmarks/router.py --table ../shared/data/prompts/routellm/mmlu.tar.gz
    python benchmarks/router.py --table ../shared/data/prompts/llmrouter/train.json.gz --encoder static

A table is RouteLLM's (a folder or .tar.gz of CSV files: `prompt` and a column of True and False for each of two models; each file is a
subject), GSM8K's in the same form, LLMRouter's (JSON: `question` and `scores` by model) or Penstock's own (`penstock router train`).
Repeatable: tables of the same two models are put together. Everything is cross-validated, and whatever a router chooses of
itself it chooses within its training part. Intervals are 95 % by bootstrap: over prompts, and for unseen subjects over subjects.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from penstock.app.learning import chosen_pair, encoded
from penstock.cli.router import lines
from penstock.router.curve import Part, versus
from penstock.router.evaluation import LENGTH, OWN, RANDOM, RULES, Report, cross_validated, report
from penstock.router.table import Row, Table, make_table, read_table

csv.field_size_limit(2**27)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, action="append", required=True)
    parser.add_argument("--encoder", choices=("auto", "minilm", "static", "none"), default="auto")
    parser.add_argument("--weak")
    parser.add_argument("--strong")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = [row for path in arguments.table for row in rows_of(path)]
    table = chosen_pair(make_table(rows), arguments.weak, arguments.strong)
    groups = len(set(table.groups))
    print(f"{len(table.prompts):,} prompts of {groups} groups: {table.models[0]} or {table.models[1]}", file=sys.stderr)
    started = time.perf_counter()
    given, encoder = encoded(table, arguments.encoder)
    print(f"read in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    found: dict[str, tuple[Report, list[Part]]] = {}
    for unseen in (False, True) if groups >= 2 * arguments.folds else (False,):
        told = lambda line: print(f"{line} ({time.perf_counter() - started:.0f} s)", file=sys.stderr)  # noqa: E731
        parts = list(cross_validated(table, given, unseen=unseen, folds=arguments.folds, seed=arguments.seed, told=told))
        name = "unseen subjects" if unseen else "in distribution"
        found[name] = (report(table, parts), parts)
        print("\n".join(lines(name, table, found[name][0])), flush=True)
    print(json.dumps(summary(table, encoder.name, found)))


def summary(table: Table, encoder: str, found: dict[str, tuple[Report, list[Part]]]) -> dict[str, object]:
    told: dict[str, object] = {
        "benchmark": "router",
        "models": list(table.models),
        "prompts": len(table.prompts),
        "encoder": encoder or "none",
    }
    for name, (told_of, parts) in found.items():
        end = "" if name == "in distribution" else "_unseen"
        own = told_of.worth[OWN]
        told |= {f"apgr{end}": round(own.apgr, 4), f"interval{end}": [round(own.low, 4), round(own.high, 4)]}
        told |= {f"cpt50{end}": own.cpt50, f"cpt80{end}": own.cpt80}
        told[f"baselines{end}"] = {other: round(told_of.worth[other].apgr, 4) for other in (RANDOM, LENGTH, RULES)}
        best = max((RANDOM, LENGTH, RULES), key=lambda other, by=told_of.worth: by[other].apgr)
        against = versus(parts, OWN, best)
        told |= {f"best_baseline{end}": best, f"p{end}": round(against.p, 5)}
        told[f"more{end}"] = [round(figure, 4) for figure in (against.more, against.low, against.high)]
    return told


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a file, of a tar of files, or of all files of a folder."""
    if path.is_dir():
        for inner in sorted(inner for inner in path.rglob("*") if inner.suffix in (".csv", ".gz") and inner.is_file()):
            yield from rows_of(inner)
    elif ".tar" in path.suffixes:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    yield from _read(Path(member.name), file.read())
    elif path.suffix == ".jsonl" or (path.suffix == ".csv" and b"score" in path.read_bytes()[:200]):
        table = read_table(path)
        for prompt, scores, group in zip(table.prompts, table.scores, table.groups, strict=True):
            yield from (Row(prompt, model, float(score), None, group) for model, score in zip(table.models, scores, strict=True))
    else:
        yield from _read(path, path.read_bytes())


def _read(path: Path, content: bytes) -> Iterator[Row]:
    if path.suffix == ".gz":
        path, content = path.with_suffix(""), gzip.decompress(content)
    text = content.decode("utf-8")
    if path.suffix == ".json":
        for entry in json.loads(text):
            group = str(entry["cluster_id"]) if "cluster_id" in entry else ""
            yield from (Row(entry["question"], model, float(score), None, group) for model, score in entry["scores"].items())
        return
    for fields in csv.DictReader(io.StringIO(text, newline="")):
        prompt = fields.pop("prompt")
        known = {model: value for model, value in fields.items() if value in ("True", "False")}
        yield from (Row(prompt, model, float(value == "True"), None, path.stem) for model, value in known.items())


if __name__ == "__main__":
    main()
