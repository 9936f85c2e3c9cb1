"""Guards, cache and cascade on the same traffic, by HTTP, against a real `penstock serve`: each off, on, in shadow, and all of them on.

    python benchmarks/replay.py --trace AzureLLMInferenceTrace_conv.csv --prompts FOLDER
    python benchmarks/replay.py --trace FILE --prompts FOLDER --settings off all --requests 300

A fresh server for each setting answers the same requests (see traffic.py) with the two built-in models, greedily, and every request
asks for the model "auto": the larger one, or what the cascade makes of it; in "small" and "cascade shadow" the smaller one. One row for
each setting:

    cost        dollars for a thousand requests, of the machine's price by the hour (--usd-per-hour), as the answers tell it
    ttft, e2e   seconds to the first token and to the last, median and 95th percentile of what was answered
    quality     right answers of those that can be graded, with Wilson's 95 % interval
    same        answers that are the same, letter by letter, as those of the first setting
    hits, small answered from the cache, by the smaller model alone; in shadow, how many would have been
    refused     requests refused by a guard: attacks, and others (false alarms); in shadow, how many would have been
    failed      errors, and what was not answered within --limit-s

Then the answers are compared with the ledger: request for request what they cost, how many came from the cache, what was judged. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from penstock.files import BUILTIN

sys.path.insert(0, str(Path(__file__).resolve().parent))
from figures import wilson
from replayed import UNFINISHED, Answer, Died, Judged, Run, Server, differences, free_port, read_ledger, replay, served
from traffic import Ask, Source, traffic

GUARD = """
[[guard.rules]]
kind = "injection"
[[guard.rules]]
kind = "pii"
action = "redact"
[[guard.rules]]
kind = "toxicity"
"""
SETTINGS = {  # name: (mode of the guard, of the cache, policy and mode of the router)
    "off": ("off", "off", "fixed", "on"),
    "small": ("off", "off", "fixed", "on"),
    "guard": ("on", "off", "fixed", "on"),
    "guard shadow": ("shadow", "off", "fixed", "on"),
    "cache": ("off", "on", "fixed", "on"),
    "cache shadow": ("off", "shadow", "fixed", "on"),
    "cascade": ("off", "off", "cascade", "on"),
    "cascade shadow": ("off", "off", "cascade", "shadow"),
    "all": ("on", "on", "cascade", "on"),
}
LED_TO_SMALL = ("small", "cascade shadow")  # a cascade in shadow weighs the answers of its first model only where that one gives them
DEFAULT = [name for name in SETTINGS if name != "small"]
CONFIG = """
[server]
port = {port}
data_dir = "{folder}"
[prices]
machine_usd_per_hour = {usd}
[engine]
max_queue = 4096
[[models]]
model = "{small}"
name = "{small_name}"
[[models]]
model = "{large}"
name = "{large_name}"
[router]
auto = "{auto}"
policy = "{policy}"
mode = "{router}"
tiers = {{ simple = "{small_name}", complex = "{large_name}" }}
[cache]
exact = "{cache}"
semantic = "{cache}"
[embeddings]
enabled = false
[guard]
mode = "{guard}"
"""
COLUMNS = (  # of the table, and their widths
    ("setting", 14), ("$/1000", 9), ("ttft p50", 9), ("p95", 7), ("e2e p50", 8), ("p95", 7), ("quality (95 %)", 23), ("same", 6),
    ("hits", 5), ("small", 5), ("refused", 9), ("failed", 6), ("ledger", 7),
)  # fmt: skip


def main() -> None:
    args = arguments()
    asked = traffic(Source(args.trace, args.prompts, args.names, args.repeats, args.speed, args.seed), args.requests)
    print(described(asked), flush=True)
    print(" ".join(f"{name:>{width}}" for name, width in COLUMNS), flush=True)
    rows: dict[str, dict[str, object]] = {}
    first: Run | None = None
    for setting in args.settings:
        run = measured(setting, asked, args)
        first = first or run
        rows[setting] = summary(asked, run, first, args.names)
        print(line(setting, rows[setting]), flush=True)
    given = {name: getattr(args, name) for name in ("requests", "speed", "max_tokens", "repeats", "seed", "usd_per_hour", "small", "large")}
    print(json.dumps({"benchmark": "replay", **given, "settings": rows}, default=str))
    if not all(row["ledger_agrees"] for row in rows.values()):
        raise SystemExit("a server did not last, or the answers and the ledger differ: see above")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, required=True, help="CSV whose first column is the time of a request")
    parser.add_argument("--prompts", type=Path, required=True, help="folder with semantic_cache_gptcache, oasst_vicuna and gsm8k")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--speed", type=float, default=6.0, help="how many times faster than in the trace they come")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=float, default=0.15, help="share of the requests that say what was said before")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=DEFAULT)
    parser.add_argument("--limit-s", type=float, default=85.0, help="of one setting, without the start of its server")
    parser.add_argument("--usd-per-hour", default="0.10", help="price of the machine")
    parser.add_argument("--small", default="penstock-mini", help="a model as `penstock serve` takes it")
    parser.add_argument("--large", default="penstock-midi")
    parser.add_argument("--config", type=Path, help="more settings in TOML, put below those of each setting")
    parser.add_argument("--guards", type=Path, help="[[guard.rules]] in TOML, in place of injection, PII and toxicity")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.names = tuple(name if name in BUILTIN else Path(name).name for name in (args.small, args.large))
    return args


def measured(setting: str, asked: Sequence[Ask], args: argparse.Namespace) -> Run:
    """One setting on a server of its own, whose files are gone afterwards."""
    run = Run()
    with tempfile.TemporaryDirectory(prefix="penstock-replay-") as folder:
        config, port = Path(folder) / "penstock.toml", free_port()
        config.write_text(toml(setting, port, args, Path(folder)))
        try:
            with served(config, port) as server:
                asyncio.run(warm_up(server, args.names))
                run = asyncio.run(replay(server, bodies(asked, args.max_tokens), args.limit_s))
            read_ledger(config, run)
        except Died as error:
            run.failure = run.failure or str(error)
    return run


def toml(setting: str, port: int, args: argparse.Namespace, folder: Path) -> str:
    guard, cache, policy, router = SETTINGS[setting]
    small, large = args.names
    written = CONFIG.format(
        port=port, folder=folder / "data", usd=args.usd_per_hour, guard=guard, cache=cache, policy=policy, router=router,
        small=args.small, large=args.large, small_name=small, large_name=large, auto=small if setting in LED_TO_SMALL else large,
    )  # fmt: skip
    rules = (args.guards.read_text() if args.guards else GUARD) if guard != "off" else ""
    return written + rules + (args.config.read_text() if args.config else "")


def bodies(asked: Sequence[Ask], max_tokens: int) -> list[tuple[float, dict[str, object]]]:
    common = {"model": "auto", "max_tokens": max_tokens, "temperature": 0, "stream": True, "penstock": {"explain": True}}
    return [(ask.at_s, {**common, "messages": [{"role": "user", "content": ask.text}]}) for ask in asked]


async def warm_up(server: Server, names: Sequence[str]) -> None:
    """The first touch of memory, and what is loaded at the first request, are in no setting's latency."""
    for model in (*names, "auto"):
        body = {"model": model, "max_tokens": 8, "temperature": 0, "stream": True, "messages": [{"role": "user", "content": "Warm up."}]}
        await replay(server, [(0.0, body)] * 2, 60.0, "warm")


def summary(asked: Sequence[Ask], run: Run, first: Run, names: Sequence[str]) -> dict[str, object]:
    """One row. Without answers it says why."""
    differ = differences(run)
    for difference in differ[:5]:
        print(f"  ledger: {difference}", flush=True)
    if run.failure:
        print(f"  {run.failure}", flush=True)
    kinds = [ask.kind for ask in asked[: len(run.answers)]]
    finished = sum(answer.code != UNFINISHED for answer in run.answers)
    done = [answer for answer in run.answers if answer.answered]
    costs = [answer.cost for answer in run.answers if answer.cost is not None]
    right = [ask.right(answer.text) for ask, answer in zip(asked, run.answers, strict=False) if ask.right and answer.code != UNFINISHED]
    same = [one.text == other.text for one, other in zip(run.answers, first.answers, strict=False) if one.answered and other.answered]
    refused = Counter(kind == "attack" for kind, answer in zip(kinds, run.answers, strict=True) if would(answer, "guard", "refuse"))
    return {
        "cost_usd_per_1000": float(sum(costs) / finished * 1000) if finished else None,
        "ttft_p50_s": share_below(0.5, [answer.ttft_s for answer in done]),
        "ttft_p95_s": share_below(0.95, [answer.ttft_s for answer in done]),
        "e2e_p50_s": share_below(0.5, [answer.e2e_s for answer in done]),
        "e2e_p95_s": share_below(0.95, [answer.e2e_s for answer in done]),
        "quality": quality(sum(right), len(right)),
        "quality_by_kind": by_kind(asked, run),
        "graded": len(right),
        "same": sum(same) / len(same) if same else None,
        "hits": sum(would(answer, "cache", "hit") for answer in run.answers),
        "small": sum(would(answer, "router", "kept") for answer in run.answers),
        "refused_attacks": refused[True],
        "refused_others": refused[False],
        "failed": dict(Counter(answer.code for answer in run.answers if answer.code and not answer.refused)),
        "answered": len(done),
        "wall_s": run.wall_s,
        "judgements": {" ".join(map(str, what)): count for what, count in sorted(judged(run).items())},
        "ledger_usd": str(sum((Decimal(str(row["cost_usd"] or 0)) for row in run.ledger), Decimal(0))),
        "told_usd": str(sum(costs, Decimal(0))),
        "failure": run.failure,
        "ledger_agrees": not differ and not run.failure and bool(run.answers),
    }


def would(answer: Answer, room: str, action: str) -> bool:
    """Whether a room did so, or in shadow would have."""
    if (room == "guard" and answer.refused) or (room == "cache" and answer.cache == "hit"):
        return True
    return any(judged[0] == room and judged[2] == action for judged in answer.judged or ())


def judged(run: Run) -> Counter[Judged]:
    """How often each thing was decided, by the ledger."""
    return Counter((str(row["room"]), str(row["rule"]), str(row["action"]), bool(row["shadow"])) for row in run.judgements)


def by_kind(asked: Sequence[Ask], run: Run) -> dict[str, tuple[float, float, float] | None]:
    """Quality of each kind of request that can be graded."""
    graded: dict[str, list[bool]] = {}
    for ask, answer in zip(asked, run.answers, strict=False):
        if ask.right and answer.code != UNFINISHED:
            graded.setdefault(ask.kind, []).append(ask.right(answer.text))
    return {kind: quality(sum(right), len(right)) for kind, right in sorted(graded.items())}


def quality(right: int, asked: int) -> tuple[float, float, float] | None:
    """The share of right answers and its 95 % interval."""
    return (right / asked, *wilson(right, asked)) if asked else None


def share_below(share: float, values: Iterable[float | None]) -> float | None:
    """The value that this share of the known ones does not exceed."""
    known = sorted(value for value in values if value is not None)
    return known[min(int(share * len(known)), len(known) - 1)] if known else None


def described(asked: Sequence[Ask]) -> str:
    """What is replayed, in a line."""
    kinds, said = Counter(ask.kind for ask in asked), Counter(ask.said_before for ask in asked)
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    again = ", ".join(f"{said[how]} {how}" for how in ("exactly", "alike", "nearly"))
    return f"{len(asked)} requests within {asked[-1].at_s:.0f} s: {parts}; said before: {again}"


def line(setting: str, row: dict[str, object]) -> str:
    """The row as the table shows it."""

    def number(name: str, digits: int) -> str:
        value = row[name]
        return f"{value:.{digits}f}" if isinstance(value, float) else "-"

    quality, failed = row["quality"], row["failed"]
    cells = [
        setting,
        number("cost_usd_per_1000", 6),
        *(number(name, 2) for name in ("ttft_p50_s", "ttft_p95_s", "e2e_p50_s", "e2e_p95_s")),
        "{:.1%} ({:.1%} – {:.1%})".format(*quality) if isinstance(quality, tuple) else "-",
        number("same", 3),
        str(row["hits"]),
        str(row["small"]),
        f"{row['refused_attacks']} + {row['refused_others']}",
        str(sum(failed.values())) if isinstance(failed, dict) else "-",
        "died" if row["failure"] else "agrees" if row["ledger_agrees"] else "DIFFERS",
    ]
    return " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True))


if __name__ == "__main__":
    main()
