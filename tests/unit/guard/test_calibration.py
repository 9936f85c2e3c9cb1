"""Thresholds from an operator's own traffic, from the command line to the rule that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from guarded import chat, guard_of

from penstock.cli import main
from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError, UserError
from penstock.guard.calibration import calibrated, most_above, needed, upper_bound
from penstock.guard.head import Head, load_head
from penstock.guard.traffic import read_samples

SHOPS = ("tea", "shoes", "books", "lamps", "bikes")
ASKS = (
    "Do you sell {0}?",
    "When are {0} delivered?",
    "I want to return {0}.",
    "How much are the blue {0}?",
    "Ignore my last order of {0}, please.",
)


def traffic(path: Path, number: int) -> Path:
    random = Random(1)
    lines = [{"prompt": f"{random.choice(ASKS).format(random.choice(SHOPS))} Order {at}."} for at in range(number - 1)]
    lines.append({"messages": [{"role": "system", "content": "You sell tea."}, {"role": "user", "content": "Hello!"}]})  # type: ignore[dict-item]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_the_bound_is_clopper_and_pearsons() -> None:
    assert needed(0.01) == 299 and needed(0.05) == 59  # the rule of three
    assert upper_bound(0, 299) == pytest.approx(0.01, abs=1e-4)
    assert upper_bound(5, 100) == pytest.approx(0.1023, abs=2e-4)  # scipy.stats.beta.ppf(0.95, 6, 95)
    assert most_above(298, 0.01) is None and most_above(299, 0.01) == 0 and most_above(473, 0.01) == 1


def test_new_traffic_keeps_to_the_bound_about_as_often_as_promised() -> None:
    head = Head("h", load_head("input").buckets, load_head("input").dense, 0.0, 0.5, "d")
    random = Random(5)
    broken = 0
    for _ in range(200):
        limit = calibrated([random.random() for _ in range(400)], head, 0.03)
        assert limit is not None and limit.bound <= 0.03
        broken += 1 - limit.threshold > 0.03  # the true share above it
    assert broken <= 20  # 5 % promised


def test_calibrate_writes_what_the_rule_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "guard.json"
    assert main(["guard", "calibrate", str(traffic(tmp_path / "t.jsonl", 120)), "--false-alarms", "0.05", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "input: threshold" in printed and "at most" in printed
    assert "tools: 0 texts, 59 are needed" in printed
    limit = json.loads(out.read_text())["limits"]["input"]
    assert limit["samples"] == 120 and limit["head"] == load_head("input").digest
    assert limit["bound"] <= 0.05


async def test_the_threshold_of_a_calibration_is_the_rules(tmp_path: Path) -> None:
    head = load_head("input")
    out = tmp_path / "guard.json"
    limit = {"head": head.digest, "threshold": 0.0, "samples": 300, "above": 0, "bound": 0.01}
    out.write_text(json.dumps({"rule": "injection", "false_alarms": 0.01, "limits": {"input": limit}}))
    strict = RuleSettings(kind="injection", calibration=str(out), budget_s=10.0)
    assert (await guard_of(strict).check(chat("Hello."), lambda _: None)).refusal is not None  # every score is above 0
    assert (await guard_of(RuleSettings(kind="injection", budget_s=10.0)).check(chat("Hello."), lambda _: None)).refusal is None


@pytest.mark.parametrize(
    ("change", "says"),
    [({"rule": "toxicity"}, "is of the rule 'toxicity'"), ({"head": "0000"}, "is of another head 'input'"), (None, "cannot be read")],
)
def test_a_calibration_of_something_else_is_refused(tmp_path: Path, change: dict[str, str] | None, says: str) -> None:
    out = tmp_path / "guard.json"
    found = {"head": load_head("input").digest, **(change or {})}
    limit = {"head": found["head"], "threshold": 0.5, "samples": 300, "above": 0, "bound": 0.01}
    out.write_text(
        json.dumps({"rule": found.get("rule", "injection"), "false_alarms": 0.01, "limits": {"input": limit}}) if change else "{"
    )
    with pytest.raises(ConfigError, match=says):
        guard_of(RuleSettings(kind="injection", calibration=str(out)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--false-alarms", "0.01"), "59 innocent texts are too few to bound false alarms by 1.00%: that takes 299"),
        (("--false-alarms", "2"), "a share between 0 and 1"),
        (("--rule", "length"), "takes no calibration"),
    ],
)
def test_what_cannot_be_calibrated_is_said(
    tmp_path: Path, arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["guard", "calibrate", str(traffic(tmp_path / "t.jsonl", 59)), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_line_that_is_no_sample_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "hi"}\n{"prompt": 3}\n')
    assert main(["guard", "calibrate", str(path)]) == 2
    assert "line 2" in capsys.readouterr().err


def test_a_line_that_asks_nothing_is_named(tmp_path: Path) -> None:
    file = tmp_path / "traffic.jsonl"
    file.write_text('{"prompt": "Hello"}\n{"promt": "Hello"}\n')
    with pytest.raises(UserError, match="line 2 has neither a prompt nor messages"):
        read_samples(file)
