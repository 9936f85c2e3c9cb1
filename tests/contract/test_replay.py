"""The replay of real traffic, small and on texts of our own: the benchmark's own sums, and a run against a real server."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from penstock.files import BUILTIN

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from replay import quality, share_below  # noqa: E402 (the folder above must be known first)
from replayed import Answer, Run, differences  # noqa: E402
from traffic import TASKS, Source, Turn, graded, last_number_is, traffic  # noqa: E402

NAMES = ("penstock-mini", "penstock-midi")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A trace of one request a second, and prompts in the layout of the public ones."""
    trace = tmp_path / "trace.csv"
    rows = [f"2026-11-21 18:{second // 60:02}:{second % 60:02}.1234567,10,5" for second in range(400)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    files = {
        "semantic_cache_gptcache/qqp_pairs.jsonl.gz": [
            {"text_a": f"Why is number {n} odd?", "text_b": f"Is {n} odd?", "label": n % 2} for n in range(300)
        ],
        "oasst_vicuna/oa_questions.jsonl.gz": [
            {"input": f"### Human: Write poem {n} ### Assistant: No. ### Human: Please ### Assistant:"} for n in range(9)
        ],
        "gsm8k/test.jsonl": [{"question": f"Ann has {n} pens and buys 1. How many now?", "answer": f"So.\n#### {n + 1}"} for n in range(9)],
    }
    for name, found in files.items():
        path = tmp_path / "prompts" / name
        path.parent.mkdir(parents=True)
        text = "\n".join(map(json.dumps, found)).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return Source(trace, tmp_path / "prompts", NAMES, speed=2.0)


def test_traffic_is_the_same_from_the_same_seed_and_mixed_as_it_says(source: Source) -> None:
    asked = traffic(source, 400)
    assert [ask.text for ask in asked] == [ask.text for ask in traffic(source, 400)]
    assert [ask.at_s for ask in asked[:3]] == pytest.approx([0.0, 0.5, 1.0])
    kinds, said = Counter(ask.kind for ask in asked), Counter(ask.said_before for ask in asked)
    assert kinds["task"] > kinds["oasst"] > kinds["attack"] > 0
    assert said["exactly"] == pytest.approx(60, abs=25) and said["alike"] > 5 and said["nearly"] > 5


def test_what_was_said_before_was_said_before(source: Source) -> None:
    asked = traffic(source, 400)
    for place, ask in enumerate(asked):
        if ask.said_before == "exactly":
            assert ask.text in {earlier.text for earlier in asked[:place]}
        elif ask.said_before:
            assert any(earlier.text == f"Why is number {ask.text.split()[1]} odd?" for earlier in asked[:place])


def test_tasks_and_word_problems_are_graded_and_either_model_may_say_its_name(source: Source) -> None:
    asked = traffic(source, 400)
    assert all((ask.right is not None) == (ask.kind in ("task", "gsm8k")) for ask in asked)
    identity = next(task for task in TASKS if task.name == "identity")
    right = graded(identity, Turn("identity", "Who are you?", "I am penstock-mini.", "k"), NAMES)
    assert right("I am penstock-mini.") and right("I am penstock-midi.") and not right("I am somebody.")


@pytest.mark.parametrize(("reply", "right"), [("It is 1,234.", True), ("12 + 1222 = 1234", True), ("1234 or 5", False), ("none", False)])
def test_the_last_number_counts(reply: str, right: bool) -> None:
    assert last_number_is(" 1,234")(reply) is right


def test_intervals_and_percentiles() -> None:
    share, low, high = quality(8, 10) or (0, 0, 0)
    assert (share, round(low, 3), round(high, 3)) == (0.8, 0.49, 0.943)
    assert quality(0, 0) is None
    assert share_below(0.5, [3.0, None, 1.0, 2.0]) == 2.0 and share_below(0.95, []) is None


def ended(**changes: object) -> Run:
    """One request that the answers and the ledger tell alike."""
    row = {"request_id": "chatcmpl-replay-0-0123-0", "purpose": "answer", "cost_usd": "0.5"}
    said = {"request_id": "chatcmpl-replay-0-0123-0", "room": "cache", "rule": "exact", "action": "miss", "shadow": 0}
    answer = Answer("replay-0", cost=Decimal("0.50"), cache="miss", judged=[("cache", "exact", "miss", False)])
    return Run(answers=[answer], ledger=[{**row, **changes}], judgements=[said])


def test_a_ledger_that_says_something_else_is_noticed() -> None:
    assert differences(ended()) == []
    assert "cost" in differences(ended(cost_usd="0.4"))[0]
    assert "hit" in differences(ended(purpose="cache"))[0]
    run = ended()
    run.judgements.clear()
    assert "was told [('cache'" in differences(run)[0]


def test_a_small_replay_against_a_real_server(source: Source, tmp_path: Path) -> None:
    large = tmp_path / "penstock-midi"
    large.symlink_to(BUILTIN.get("penstock-midi", BUILTIN["penstock-mini"]))
    command = [sys.executable, "benchmarks/replay.py", "--trace", source.trace, "--prompts", source.prompts, "--large", large]
    done = subprocess.run(
        [*map(str, command), "--requests", "24", "--speed", "40", "--max-tokens", "8", "--repeats", "0.5", "--settings", "cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table, last = done.stdout.splitlines()[1:3], json.loads(done.stdout.splitlines()[-1])
    row = last["settings"]["cache"]
    assert "quality" in table[0] and table[1].split()[0] == "cache" and table[1].endswith("agrees")
    assert row["ledger_agrees"] and row["answered"] == 24 and row["failed"] == {}
    assert row["hits"] > 0 and row["told_usd"] == row["ledger_usd"] and Decimal(row["told_usd"]) > 0
