"""The two encoders on pairs of sentences: how far they agree, how well they tell pairs that mean the same from others, what they take.

    python benchmarks/encoders.py --mrpc msr_paraphrase_train.txt --quora qqp_pairs.jsonl.gz

Spearman's rank correlation is between the cosines of the static table and those of MiniLM; AUC is the chance that a pair that means the
same has a higher cosine than one that does not. 95 % intervals are from a bootstrap over pairs. Time is of one thread's processor, per
sentence, one at a time and 32 at a time; run it with OMP_NUM_THREADS=1. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
from figures import auc, ranks
from numpy.typing import NDArray

from penstock.embed import TextVectors, open_vectors

Numbers = NDArray[np.float64]
Pair = tuple[str, str, int]
TIMED = 64  # sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mrpc", type=Path, help="the training file of Microsoft's paraphrase corpus")
    parser.add_argument("--quora", type=Path, help="JSON lines with text_a, text_b and label")
    parser.add_argument("--pairs", type=int, default=4000, help="most of each")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    encoders = {which: open_vectors(which) for which in ("minilm", "static")}  # type: ignore[arg-type]
    results: dict[str, object] = {"benchmark": "encoders"}
    for name, path, read in (("mrpc", args.mrpc, mrpc), ("quora", args.quora, quora)):
        if path is not None:
            pairs = list(read(path))
            Random(args.seed).shuffle(pairs)
            results[name] = compared(name, pairs[: args.pairs], encoders)
    results["microseconds"] = {which: timed(which) for which in encoders}
    print(json.dumps(results))


def compared(name: str, pairs: Sequence[Pair], encoders: dict[str, TextVectors]) -> dict[str, object]:
    """Both encoders on the same pairs."""
    cosines = {which: np.einsum("nd,nd->n", *sides(encoder, pairs)).astype(np.float64) for which, encoder in encoders.items()}
    label = np.array([pair[2] for pair in pairs])
    row: dict[str, object] = {
        "pairs": len(pairs),
        "spearman": interval(lambda at: spearman(cosines["minilm"][at], cosines["static"][at]), len(pairs)),
    }
    row |= {f"auc_{which}": interval(lambda at, values=values: auc(label[at], values[at]), len(pairs)) for which, values in cosines.items()}
    print(
        f"{name:>6}: "
        + ", ".join(f"{key} {value[0]:.3f} ({value[1]:.3f} – {value[2]:.3f})" for key, value in row.items() if isinstance(value, tuple))
    )
    return row


def sides(encoder: TextVectors, pairs: Sequence[Pair]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return encoder.now([pair[0] for pair in pairs]), encoder.now([pair[1] for pair in pairs])


def interval(measure: Callable[[NDArray[np.int64]], float], count: int, rounds: int = 200) -> tuple[float, float, float]:
    """The measure of all pairs, and of 95 % of the bootstrap's rounds."""
    rng = np.random.default_rng(0)
    drawn = sorted(measure(rng.integers(0, count, count)) for _ in range(rounds))
    return measure(np.arange(count)), drawn[int(rounds * 0.025)], drawn[int(rounds * 0.975) - 1]


def spearman(one: Numbers, other: Numbers) -> float:
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def timed(which: str) -> dict[str, float]:
    """Microseconds of processor time for a sentence of sixteen words, seen for the first time; the least of three."""
    sentences = [f"How do I change the address of order {number} before it is sent to my office?" for number in range(TIMED * 6)]
    encoder = open_vectors(which)  # type: ignore[arg-type]
    encoder.now(["Warm up."])
    alone, together = [], []
    for round_ in range(3):
        part = sentences[round_ * 2 * TIMED : (round_ + 1) * 2 * TIMED]
        started = time.thread_time()
        for sentence in part[:TIMED]:
            encoder.now([sentence])
        middle = time.thread_time()
        encoder.now(part[TIMED:])
        alone.append(middle - started)
        together.append(time.thread_time() - middle)
    row = {"alone": min(alone) / TIMED * 1e6, "together": min(together) / TIMED * 1e6}
    print(f"{which:>6}: {row['alone']:.0f} µs a sentence, {row['together']:.0f} µs where 32 come together")
    return row


def mrpc(path: Path) -> Iterator[Pair]:
    for line in path.read_text(encoding="utf-8-sig").splitlines()[1:]:
        cells = line.split("\t")
        if len(cells) == 5:
            yield cells[3], cells[4], int(cells[0])


def quora(path: Path) -> Iterator[Pair]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield row["text_a"], row["text_b"], int(row["label"])


if __name__ == "__main__":
    main()
