"""The semantic cache's judgement on labelled pairs of questions: how often it answers wrongly, and how often it answers at all.

    python benchmarks/semantic_cache.py --pairs FILE --delta 0.02 --mrpc FOLDER

FILE has a JSON object a line: text_a, text_b, label (1: one answer does for both). Half of it, by clusters of shared texts, is what
`training/pairs.py` may learn from; the other half is the unseen part (docs/cache.md says what was changed after runs on it). Each
text_a is stored, each text_b looked up, in shuffled order, by the real `Verifier`: it begins with what ships, knows nothing of this
traffic, and learns from its trials as it goes, whose outcome is the label.

    error_rate = wrong answers served / lookups (as vCache defines it)      hit_rate = answers served / lookups

Two protocols. The first, which the figures at the top of the JSON are of, gives each lookup the one stored text that it is labelled with,
so that the truth is known. The second, `among_all`, stores all text_a together and gives each lookup the five nearest of thousands. There
a hit on another text is wrong unless the labels make it a duplicate, directly or through others: duplicates that nobody labelled count as
errors, of every method alike.

Beside it, on the same lookups and by the same truth: the best single cosine threshold whose error is no greater, chosen with hindsight;
GPTCache's default rule; vCache's rule for each lookup alone; and parts of ours left out. Intervals are 95 %: Wilson's for shares, a
bootstrap over lookups for the difference. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.cache.index import VectorIndex, kept
from penstock.cache.pairs import PairModel
from penstock.cache.reading import read
from penstock.cache.semantic import NEAREST
from penstock.cache.storable import unstorable_text
from penstock.cache.store.memory import MemoryStore
from penstock.cache.store.protocol import Bounds, Entry, Seen
from penstock.cache.threshold import Thresholds
from penstock.cache.verdict import WEIGHTS, Candidate, Verifier
from penstock.cache.verify import differences, found
from penstock.embed import TextVectors, open_vectors

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from figures import wilson
from minimal_pairs import Pair, question_pairs, template_pairs

from training.question_pairs import Labelled, read_mrpc, read_pairs, same_groups, split
from training.vectors import Texts

Floats = NDArray[np.float32]
GPTCACHE_COSINE = 0.6  # SearchDistanceEvaluation: 4 - d² ≥ 0.8 · 4 for vectors of unit length, d² = 2 - 2 cos
PLAIN = 0.90  # the cosine at which plain MiniLM is quoted
DIMENSIONS = 384


@dataclass
class Stream:
    """Lookups and what the index finds for each: [lookups, NEAREST] places in `stored`, best first, with their cosines and the truth."""

    stored: list[str]
    asked: list[str]
    stored_vectors: Floats
    asked_vectors: Floats
    near: NDArray[np.int64]
    cosines: Floats
    same: NDArray[np.bool_]


@dataclass
class Served:
    """What came of each lookup, in the stream's order."""

    hit: NDArray[np.bool_]
    wrong: NDArray[np.bool_]

    @property
    def error_rate(self) -> float:
        return float(self.wrong.mean())

    @property
    def hit_rate(self) -> float:
        return float(self.hit.mean())


def main() -> None:
    options = _options()
    vectors = open_vectors(options.encoder)
    pairs = read_pairs(options.pairs)
    unseen = split(pairs)[1] if options.part == "unseen" else list(pairs)
    random.Random(options.seed).shuffle(unseen)
    unseen = unseen[: options.most]
    among = make_stream(unseen, Texts(vectors, options.keep))
    stream = partners(among, unseen)
    print(f"{options.pairs.name}: {len(unseen):,} lookups, {len(among.stored):,} stored, encoder {vectors.name}, delta {options.delta:g}")
    verifier = _verifier(vectors, options.delta)
    ours = online(stream, verifier, options.seed)
    report: dict[str, object] = {"benchmark": "semantic_cache", "encoder": vectors.name, "delta": options.delta, "lookups": len(unseen)}
    print("\neach lookup and the text it is labelled with")
    report |= compared(stream, ours, options.delta)
    report |= ablations(stream, vectors, options)
    print("\neach lookup and the nearest of all; a duplicate that nobody labelled is an error")
    report["among_all"] = compared(among, online(among, _verifier(vectors, options.delta), options.seed), options.delta)
    report["kinds"] = minimal(stream, verifier, vectors, options)
    if options.mrpc is not None:
        report["mrpc"] = on_mrpc(options, vectors)
    if options.entries:
        report |= asyncio.run(latency(among, verifier, options.entries))
    if options.gptcache:
        report["gptcache_package"] = real_gptcache(stream)
    print(json.dumps(report))


def make_stream(pairs: Sequence[Labelled], texts: Texts) -> Stream:
    """Every text_a stored, every text_b looked up exactly."""
    groups = same_groups(pairs)
    stored = sorted({pair.text_a for pair in pairs})
    asked = [pair.text_b for pair in pairs]
    both = texts.of([*stored, *asked])
    stored_vectors, asked_vectors = both[: len(stored)], both[len(stored) :]
    near = np.zeros((len(asked), NEAREST), dtype=np.int64)
    cosines = np.zeros((len(asked), NEAREST), dtype=np.float32)
    for start in range(0, len(asked), 512):
        likeness = asked_vectors[start : start + 512] @ stored_vectors.T
        top = np.argpartition(-likeness, NEAREST, axis=1)[:, :NEAREST]
        order = np.argsort(-np.take_along_axis(likeness, top, axis=1), axis=1)
        near[start : start + 512] = np.take_along_axis(top, order, axis=1)
        cosines[start : start + 512] = np.take_along_axis(likeness, near[start : start + 512], axis=1)
    same = np.array([[groups.of(text) == groups.of(stored[place]) for place in places] for text, places in zip(asked, near, strict=True)])
    return Stream(stored, asked, stored_vectors, asked_vectors, near, cosines, same)


def partners(stream: Stream, pairs: Sequence[Labelled]) -> Stream:
    """The same lookups, where each finds only the text that it is labelled with."""
    places = {text: place for place, text in enumerate(stream.stored)}
    near = np.array([[places[pair.text_a]] for pair in pairs], dtype=np.int64)
    cosines = (stream.stored_vectors[near[:, 0]] * stream.asked_vectors).sum(axis=1, keepdims=True)
    same = np.array([[pair.same or pair.text_a == pair.text_b] for pair in pairs])
    return Stream(stream.stored, stream.asked, stream.stored_vectors, stream.asked_vectors, near, cosines, same)


def online(stream: Stream, verifier: Verifier, seed: int) -> Served:
    """The stream through the verifier, which learns from the labels of its trials as it goes."""
    chance = random.Random(seed)
    seen: dict[int, tuple[Seen, ...]] = {}
    hit, wrong = np.zeros(len(stream.asked), dtype=bool), np.zeros(len(stream.asked), dtype=bool)
    for at, text in enumerate(stream.asked):
        places = [int(place) for place in stream.near[at]]
        candidates = [Candidate(stream.stored[place], stream.stored_vectors[place], seen.get(place, ())) for place in places]
        verdict = verifier.judge("", text, stream.asked_vectors[at], candidates, chance.random())
        if verdict.place is None:
            continue
        right = bool(stream.same[at, verdict.place])
        if verdict.action == "serve":
            hit[at], wrong[at] = True, not right
        elif verdict.action == "try":
            verifier.learn("", verdict.trust, right)
            place = places[verdict.place]
            seen[place] = (*seen.get(place, ()), Seen(verdict.trust, right))[-64:]
    return Served(hit, wrong)


def threshold_at(likeness: Floats, right: NDArray[np.bool_], most_error: float) -> tuple[float, Served]:
    """The single threshold with the most hits whose error rate is at most that, chosen with hindsight."""
    order = np.argsort(-likeness, kind="stable")
    errors = np.cumsum(~right[order]) / len(right)
    fits = np.nonzero(errors <= most_error + 1e-12)[0]
    fits = fits[likeness[order[fits]] > np.append(likeness[order], -np.inf)[fits + 1]] if len(fits) else fits  # not amid equals
    least = float(likeness[order[fits[-1]]]) if len(fits) else float("inf")
    hit = (likeness >= least) & np.isfinite(likeness)
    return least, Served(hit, hit & ~right)


def compared(stream: Stream, ours: Served, delta: float) -> dict[str, object]:
    """Ours beside the best global threshold of the same error, and GPTCache's rule."""
    top, right = stream.cosines[:, 0], stream.same[:, 0]
    at_same, equal = threshold_at(top, right, ours.error_rate)
    at_delta, allowed = threshold_at(top, right, delta)
    loose = Served(top >= GPTCACHE_COSINE, (top >= GPTCACHE_COSINE) & ~right)
    print(f"\n{'':46}{'error rate':>24}{'hit rate':>26}{'wrong of hits':>15}")
    for name, served in (
        ("penstock", ours), (f"one cosine threshold of the same error, {at_same:.3f}", equal),
        (f"one cosine threshold at delta, {at_delta:.3f}", allowed),
        (f"GPTCache's default, cosine {GPTCACHE_COSINE:g}", loose),
    ):  # fmt: skip
        print(row(name, served))
    low, high = difference(ours.hit, equal.hit)
    print(f"hits above that threshold's: {ours.hit_rate - equal.hit_rate:+.4f} [{low:+.4f}, {high:+.4f}]")
    return {
        "error_rate": ours.error_rate,
        "error_rate_ci95": wilson(int(ours.wrong.sum()), len(ours.wrong)),
        "hit_rate": ours.hit_rate,
        "hit_rate_ci95": wilson(int(ours.hit.sum()), len(ours.hit)),
        "wrong_of_hits": float(ours.wrong.sum() / max(1, ours.hit.sum())),
        "hit_rate_global_threshold": equal.hit_rate,
        "hit_rate_global_threshold_ci95": wilson(int(equal.hit.sum()), len(equal.hit)),
        "hit_rate_gain_ci95": [low, high],
        "global_threshold": at_same,
        "error_rate_global_threshold": equal.error_rate,
        "hit_rate_global_threshold_at_delta": allowed.hit_rate,
        "error_rate_gptcache": loose.error_rate,
        "wrong_at_cosine_099": float((~right)[top >= 0.99].mean()) if (top >= 0.99).any() else None,  # much of it is the labels'
        "hit_rate_gptcache": loose.hit_rate,
        "share_never_looked_up": float(np.mean([unstorable_text(text) is not None for text in stream.asked])),
    }


def ablations(stream: Stream, vectors: TextVectors, options: argparse.Namespace) -> dict[str, object]:
    """What each part is worth, on the same lookups."""
    model = PairModel.load(WEIGHTS, vectors.name)
    readings = {text: read(text) for text in {*stream.stored, *stream.asked}}
    passes, trust = np.zeros(stream.near.shape, dtype=bool), np.full(stream.near.shape, -np.inf, dtype=np.float32)
    for at, text in enumerate(stream.asked):
        for rank, place in enumerate(stream.near[at]):
            one, other = readings[text], readings[stream.stored[place]]
            passes[at, rank] = next(found(one, other), None) is None
            trust[at, rank] = model.trust(one, other, stream.asked_vectors[at], stream.stored_vectors[place])
    lookups = np.arange(len(stream.asked))
    ruled = np.where(passes, stream.cosines, -np.inf)
    best = np.argmax(ruled, axis=1)
    weighed = np.where(passes, trust, -np.inf)
    surest = np.argmax(weighed, axis=1)
    single = Verifier(model, Thresholds(options.delta, pooled=False))
    alone = online(stream, single, options.seed)
    _, rules = threshold_at(ruled[lookups, best].astype(np.float32), stream.same[lookups, best], options.delta)
    _, pairs = threshold_at(weighed[lookups, surest].astype(np.float32), stream.same[lookups, surest], options.delta)
    print(row("vCache's rule, each lookup by itself", alone))
    print(row("rules, then one threshold at delta (hindsight)", rules))
    print(row("rules, pair model, one threshold (hindsight)", pairs))
    return {
        "hit_rate_each_lookup_alone": alone.hit_rate,
        "error_rate_each_lookup_alone": alone.error_rate,
        "hit_rate_rules_hindsight": rules.hit_rate,
        "hit_rate_pair_model_hindsight": pairs.hit_rate,
        "duplicates_within_reach": float(stream.same.any(axis=1).mean()),
        "duplicates_refused_by_rules": float(1 - passes[stream.same].mean()),
    }


def minimal(stream: Stream, verifier: Verifier, vectors: TextVectors, options: argparse.Namespace) -> dict[str, object]:
    """Wrong hits on pairs that differ in one thing, each with its own stored question before it. The verifier goes on as it is."""
    chance = random.Random(options.seed)
    questions = chance.sample(stream.stored, min(len(stream.stored), options.minimal * 8))
    pairs = [*template_pairs(), *question_pairs(questions, options.seed)]
    chance.shuffle(pairs)
    cells: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        cell = cells.setdefault((pair.kind, pair.source), [])
        if len(cell) < options.minimal:
            cell.append(pair)
    print(f"\n{'minimal pairs':28}{'pairs':>7}{f'cosine ≥ {PLAIN:.2f}':>18}{'rules let pass':>18}{'penstock serves':>18}")
    return {f"{kind}, {source}": _minimal(kind, source, cell, verifier, vectors, chance) for (kind, source), cell in sorted(cells.items())}


def _minimal(
    kind: str, source: str, cell: list[Pair], verifier: Verifier, vectors: TextVectors, chance: random.Random
) -> dict[str, object]:
    one, other = vectors.now([pair.text_a for pair in cell]), vectors.now([pair.text_b for pair in cell])
    plain = int(((one * other).sum(axis=1) >= PLAIN).sum())
    passed = sum(not differences(pair.text_b, pair.text_a) for pair in cell)
    served = 0
    for pair, stored, asked in zip(cell, one, other, strict=True):
        verdict = verifier.judge("", pair.text_b, asked, [Candidate(pair.text_a, stored)], chance.random())
        served += verdict.action == "serve"
        if verdict.action == "try":
            verifier.learn("", verdict.trust, pair.same)
    shares = [f"{count / len(cell):8.1%} ≤ {wilson(count, len(cell))[1]:5.1%}" for count in (plain, passed, served)]
    print(f"{kind + ' ' + source:28}{len(cell):7}" + "".join(f"{share:>18}" for share in shares))
    shares_of = {"cosine": plain / len(cell), "rules": passed / len(cell), "served": served / len(cell)}
    return {"pairs": len(cell), "same": cell[0].same, **shares_of, "served_ci95": wilson(served, len(cell))}


def on_mrpc(options: argparse.Namespace, vectors: TextVectors) -> dict[str, object]:
    """Sentences of news instead of questions, with a verifier that begins anew: nothing was trained on such."""
    pairs = read_mrpc(options.mrpc)
    random.Random(options.seed).shuffle(pairs)
    print(f"\nMRPC, {len(pairs):,} pairs")
    stream = partners(make_stream(pairs, Texts(vectors, options.keep)), pairs)
    return compared(stream, online(stream, _verifier(vectors, options.delta), options.seed), options.delta)


async def latency(stream: Stream, verifier: Verifier, entries: int) -> dict[str, object]:
    """Index, store and judgement of one lookup among that many entries of one scope; the vector is at hand."""
    rng = np.random.default_rng(0)
    store = MemoryStore(Bounds(2**40, 2 * entries))
    print(f"\nfilling an index with {entries:,} entries", flush=True)
    for number in range(entries):
        place = number % len(stream.stored)
        vector = stream.stored_vectors[place] + (number >= len(stream.stored)) * rng.normal(0, 0.03, stream.stored_vectors.shape[1])
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        key = number.to_bytes(8, "big")
        await store.put(
            Entry(
                key=key,
                scope=b"s",
                tenant="",
                model="m",
                made_at=0.0,
                until=2e9 * 10,
                text=stream.stored[place],
                vector=kept(vector),
                answer=b"",
            )
        )
    index = VectorIndex(store.rows, stream.stored_vectors.shape[1], 2 * entries)
    while (  # noqa: ASYNC110 an index says nothing when it is filled
        len(await index.nearest(b"s", stream.asked_vectors[0], NEAREST)) == 0
        or (part := index._scopes[b"s"]).filling is not None
        or part.reading is not None
    ):
        await asyncio.sleep(0.2)
    took: dict[str, list[float]] = {"index": [], "judge": []}
    for at in range(min(2000, len(stream.asked))):
        started_s = time.perf_counter()
        near = await index.nearest(b"s", stream.asked_vectors[at], NEAREST)
        held = await store.get([one.key for one in near])
        found_s = time.perf_counter()
        candidates = [
            Candidate(entry.text, np.frombuffer(entry.vector, np.float16).astype(np.float32), entry.seen) for entry in held.values()
        ]
        verifier.judge("latency", stream.asked[at], stream.asked_vectors[at], candidates, 0.5)
        took["judge"].append(time.perf_counter() - found_s)
        took["index"].append(found_s - started_s)
    await index.close()
    whole = np.array(took["index"]) + np.array(took["judge"])
    p50, p99 = np.percentile(whole, [50, 99]) * 1e3
    parts = {f"{name}_p50_ms": float(np.median(values) * 1e3) for name, values in took.items()}
    each = ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
    print(f"lookup without embedding: p50 {p50:.2f} ms, p99 {p99:.2f} ms ({each})")
    return {"entries": entries, "lookup_p50_ms": float(p50), "lookup_p99_ms": float(p99), **parts}


def real_gptcache(stream: Stream) -> dict[str, object]:
    """GPTCache itself, where it is installed: its numpy-free defaults over faiss, with our vectors."""
    if importlib.util.find_spec("gptcache") is None:
        return {"installed": False}
    from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation

    evaluation = SearchDistanceEvaluation()
    low, high = evaluation.range()
    squared = 2 - 2 * stream.cosines[:, 0]
    rank = np.array([evaluation.evaluation({}, {"search_result": (float(distance), 0)}) for distance in squared])
    hit = rank >= low + (high - low) * 0.8
    served = Served(hit, hit & ~stream.same[:, 0])
    print(row("GPTCache's SearchDistanceEvaluation, 0.8", served))
    return {"installed": True, "error_rate": served.error_rate, "hit_rate": served.hit_rate}


def difference(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[float, float]:
    """The 95 % interval of the difference of two shares of the same lookups, by bootstrap."""
    rng = np.random.default_rng(0)
    apart = one.astype(np.float32) - other.astype(np.float32)
    means = [apart[rng.integers(0, len(apart), len(apart))].mean() for _ in range(1000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def row(name: str, served: Served) -> str:
    error, hits = wilson(int(served.wrong.sum()), len(served.wrong)), wilson(int(served.hit.sum()), len(served.hit))
    of_hits = served.wrong.sum() / max(1, served.hit.sum())
    shares = f"{served.error_rate:8.4f} [{error[0]:.4f}, {error[1]:.4f}]{served.hit_rate:10.4f} [{hits[0]:.4f}, {hits[1]:.4f}]"
    return f"{name:46}{shares}{of_hits:13.3f}"


def _verifier(vectors: TextVectors, delta: float) -> Verifier:
    return Verifier(PairModel.load(WEIGHTS, vectors.name), Thresholds(delta))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="JSON lines of text_a, text_b, label; perhaps gzip")
    parser.add_argument("--delta", type=float, default=0.02, help="most wrong answers, as a share of lookups (0.02)")
    parser.add_argument("--mrpc", type=Path, help="folder of the Microsoft Research Paraphrase Corpus")
    parser.add_argument("--encoder", choices=["auto", "minilm", "static"], default="auto")
    parser.add_argument("--gptcache", action="store_true", help="also ask GPTCache itself, where it is installed")
    parser.add_argument("--part", choices=["unseen", "all"], default="unseen", help="all: a file of which nothing was trained on")
    parser.add_argument("--most", type=int, default=20_000, help="lookups at most (20000)")
    parser.add_argument("--minimal", type=int, default=400, help="minimal pairs of each kind at most (400)")
    parser.add_argument("--entries", type=int, default=100_000, help="of the index whose latency is measured; 0: not measured")
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir()) / "penstock-vectors", help="folder where vectors are kept between runs"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
