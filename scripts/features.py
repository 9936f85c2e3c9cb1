"""Make docs/features.md: which features are tested together.

A test marked `@pytest.mark.feature("prefix cache", "preemption")` fills the cell of that pair, and of each of the two
by itself; so does a test with one name, or with more, and each parameter of a test may have its own. The tests are collected,
not run: a cell stands for a test that `make test` must pass, and a pair that no test shows says "no".

    python scripts/features.py           write the file
    python scripts/features.py --check   exit 1 when it is out of date
"""

from __future__ import annotations

import contextlib
import io
import sys
from itertools import combinations_with_replacement
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "features.md"
FEATURES = (
    "greedy",
    "sampling",
    "seed",
    "penalties",
    "logit bias",
    "n choices",
    "logprobs",
    "prompt logprobs",
    "stop strings",
    "stop token ids",
    "min tokens",
    "bad words",
    "allowed tokens",
    "streaming",
    "continuous batching",
    "chunked prefill",
    "prefix cache",
    "preemption",
    "sliding window",
    "MoE",
    "GGUF",
    "quantized weights",
    "GPTQ",
    "AWQ",
    "int8 weights",
    "int4 weights",
    "int8 KV",
    "int4 KV",
    "disconnect",
    "bounded queue",
    "engine restart",
    "drain",
    "keys",
    "rate limits",
    "budgets",
    "Redis",
    "ledger",
    "retries",
    "breaker",
    "hedging",
    "replicas",
    "aliases",
    "exact cache",
    "semantic cache",
    "single flight",
    "guardrails",
    "routing policies",
    "cascade",
    "voting",
    "shadow",
    "tools",
    "Responses",
    "Messages",
    "embeddings",
    "explain",
    "fair sharing",
    "engine time",
)

Pair = tuple[str, str]
Cells = dict[Pair, str]  # the first test that shows the pair: "tests/unit/test_x.py::test_y"


class Marks:
    """Takes the features of each test that pytest collects."""

    def __init__(self) -> None:
        self.tests: list[tuple[str, list[str]]] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            names = [name for mark in item.iter_markers("feature") for name in mark.args]
            self.tests.append((item.nodeid.partition("[")[0], names))


def collect(root: Path = ROOT) -> Cells:
    """The cells of all tests of a folder. Raises ValueError."""
    marks = Marks()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", f"--rootdir={root}", str(root / "tests")], plugins=[marks])
    if code != pytest.ExitCode.OK:
        raise ValueError(f"the tests cannot be collected:\n{said.getvalue()}")
    return cells_of(marks)


def cells_of(marks: Marks) -> Cells:
    """The test of each pair, in alphabetical order of the tests. Raises ValueError for a feature that is not in FEATURES."""
    cells: Cells = {}
    for test, names in sorted(marks.tests):
        unknown = set(names) - set(FEATURES)
        if unknown:
            raise ValueError(f"{test} names {sorted(unknown)}; the features are {', '.join(FEATURES)}")
        ordered = sorted(set(names), key=FEATURES.index)
        for pair in combinations_with_replacement(ordered, 2):
            cells.setdefault(pair, test)
    return cells


def render(cells: Cells) -> str:
    """The page: a table with a numbered test in each cell, and the tests below it."""
    tests = sorted(set(cells.values()))
    number = {test: i for i, test in enumerate(tests, start=1)}
    header = ["", *FEATURES]
    rows = [header, ["---"] * len(header)]
    for i, row in enumerate(FEATURES):
        shown = (cells.get(_ordered(row, column)) for column in FEATURES[: i + 1])
        rows.append([f"**{row}**", *(f"[{number[test]}](#tests)" if test else "no" for test in shown), *[""] * (len(FEATURES) - i - 1)])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    listed = "\n".join(f"{i}. `{test}`" for test, i in number.items())
    return f"{INTRODUCTION}\n{table}\n\n## Tests\n\n{listed or 'none yet'}\n"


INTRODUCTION = """# Features, and which work together

Made from the tests by `make features`; do not edit. A number is a test, listed below, that shows the two features of its cell
working in one run (on the diagonal: one for the feature itself), and that `make test` must pass. "no" means that no test shows it.
"""


def _ordered(a: str, b: str) -> Pair:
    return (a, b) if FEATURES.index(a) <= FEATURES.index(b) else (b, a)


def main(arguments: list[str]) -> int:
    page = render(collect())
    if "--check" in arguments:
        return int(not PAGE.exists() or PAGE.read_text() != page)
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
