"""Train the semantic cache's pair model: P(the answer to one question answers another).

    python -m training.pairs FILE --encoder minilm

FILE holds labelled pairs of questions (`training/question_pairs.py`). Learns from one half of its clusters and never reads the other.
Examples are each lookup's own labelled partner, and the nearest of all stored questions: what a cache would offer. A fifth of the
learning half, again by clusters, is kept aside to choose the weight decay and to calibrate (Platt, 1999): log-odds of weights that fit
their own examples are too sure. Writes `src/penstock/cache/weights/ENCODER.safetensors`, a few kilobytes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from penstock.cache.pairs import BUCKETS, NUM_FEATURES, buckets, features
from penstock.cache.reading import read
from penstock.cache.verdict import WEIGHTS
from penstock.cache.verify import found
from penstock.embed import open_vectors
from training.question_pairs import Labelled, read_pairs, same_groups, split
from training.vectors import Texts

DECAYS = (0.3, 1.0, 3.0)
EPOCHS = 12
BATCH = 512
PEAK = 9e-3
SCALE_APART, SCALE_ALIKE = 8.0, 64.0  # so that all inputs are of like size
OWN = 1.5  # weight of a labelled pair beside an unlabelled neighbour, which may be a duplicate that nobody saw


@dataclass
class Examples:
    """Pairs as tensors. `of` is the lookup of each, `passes` whether no rule finds them apart."""

    by_hand: torch.Tensor  # [examples, NUM_FEATURES]
    apart: torch.Tensor  # [examples, dimensions]
    alike: torch.Tensor  # [examples, dimensions]
    words: torch.Tensor  # of all examples, one after the other
    starts: torch.Tensor  # [examples + 1]
    same: torch.Tensor
    weight: torch.Tensor
    passes: torch.Tensor
    own: torch.Tensor


def examples(pairs: Sequence[Labelled], texts: Texts) -> Examples:
    """Each pair, and with each text_b the nearest text_a of all."""
    groups = same_groups(pairs)
    stored = sorted({pair.text_a for pair in pairs})
    places = {text: place for place, text in enumerate(stored)}
    one, other = texts.of([pair.text_b for pair in pairs]), texts.of(stored)
    nearest = np.concatenate([np.argmax(one[start : start + 512] @ other.T, axis=1) for start in range(0, len(one), 512)])
    chosen = [(at, places[pair.text_a]) for at, pair in enumerate(pairs)]
    chosen += [(at, int(place)) for at, place in enumerate(nearest) if stored[place] not in (pairs[at].text_a, pairs[at].text_b)]
    readings = {text: read(text) for text in {*stored, *(pair.text_b for pair in pairs)}}
    by_hand, words, same, passes = [], [], [], []
    for at, place in chosen:
        asked, kept = readings[pairs[at].text_b], readings[stored[place]]
        by_hand.append(features(asked, kept, float(one[at] @ other[place])))
        words.append(buckets(asked, kept))
        same.append(groups.of(pairs[at].text_b) == groups.of(stored[place]))
        passes.append(next(found(asked, kept), None) is None)
    u, v = torch.tensor(one[[at for at, _ in chosen]]), torch.tensor(other[[place for _, place in chosen]])
    own = torch.arange(len(chosen)) < len(pairs)
    return Examples(
        by_hand=torch.tensor(by_hand),
        apart=(u - v).abs() * SCALE_APART,
        alike=u * v * SCALE_ALIKE,
        words=torch.tensor([bucket for row in words for bucket in row]),
        starts=torch.tensor([0, *np.cumsum([len(row) for row in words])]),
        same=torch.tensor(same, dtype=torch.float32),
        weight=torch.where(own, OWN, 1.0),
        passes=torch.tensor(passes),
        own=own,
    )


class Model(torch.nn.Module):
    """Logistic regression; the words of one side only have a weight for each bucket."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.by_hand = torch.nn.Linear(NUM_FEATURES, 1)
        self.words = torch.nn.EmbeddingBag(BUCKETS, 1, mode="sum")
        self.apart = torch.nn.Linear(dimensions, 1, bias=False)
        self.alike = torch.nn.Linear(dimensions, 1, bias=False)
        for weight in self.parameters():
            torch.nn.init.zeros_(weight)

    def forward(self, given: Examples, rows: torch.Tensor) -> torch.Tensor:
        begin, end = given.starts[rows], given.starts[rows + 1]
        counts = end - begin
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)[:-1]])
        flat = torch.repeat_interleave(begin - offsets, counts) + torch.arange(int(counts.sum()))
        bags = self.words(given.words[flat], offsets)
        return (self.by_hand(given.by_hand[rows]) + bags + self.apart(given.apart[rows]) + self.alike(given.alike[rows]))[:, 0]


def fit(given: Examples, decay: float) -> Model:
    """AdamW with one cycle of the learning rate."""
    torch.manual_seed(0)
    model = Model(given.apart.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=decay)
    steps = EPOCHS * (len(given.same) // BATCH + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(given.same)).split(BATCH):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(given, rows), given.same[rows], weight=given.weight[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


@torch.no_grad()
def scores(model: Model, given: Examples) -> torch.Tensor:
    return torch.cat([model(given, rows) for rows in torch.arange(len(given.same)).split(8192)])


def hits_at(score: torch.Tensor, given: Examples, error: float, own: bool) -> float:
    """Share of lookups served at that share of errors, each against its own partner, or against neighbours too."""
    rows = given.passes & given.own if own else given.passes
    right = given.same[rows][torch.argsort(score[rows], descending=True)]
    errors = (1 - right).cumsum(0) / int(given.own.sum())
    return float((errors <= error).sum() / given.own.sum())


def platt(score: torch.Tensor, given: Examples) -> tuple[float, float]:
    """Scale and shift that make log-odds of the scores, on what the rules let pass."""
    rows = given.passes
    line = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
    optimizer = torch.optim.LBFGS([line], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            line[0] * score[rows] + line[1], given.same[rows], weight=given.weight[rows]
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    return line[0].item(), line[1].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--encoder", choices=["minilm", "static"], default="minilm")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "penstock-vectors")
    options = parser.parse_args()
    vectors = open_vectors(options.encoder)
    texts = Texts(vectors, options.keep)
    learn = split(read_pairs(options.pairs))[0]
    rest, fifth = aside(learn)
    given, held = examples(rest, texts), examples(fifth, texts)
    fitted = {decay: fit(given, decay) for decay in DECAYS}
    reached = {decay: [hits_at(scores(model, held), held, 0.015, own) for own in (True, False)] for decay, model in fitted.items()}
    plain = [hits_at(held.by_hand[:, 0], held, 0.015, own) for own in (True, False)]
    best = max(reached, key=lambda decay: sum(reached[decay]))
    model = fitted[best]
    slope, shift = platt(scores(model, held), held)
    print(f"hits at 1.5 % errors on the fifth kept aside, partners and all: cosine {plain}, by weight decay {reached}", file=sys.stderr)
    print(f"weight decay {best}; scale {slope:.3f}, shift {shift:.3f}", file=sys.stderr)
    WEIGHTS.mkdir(exist_ok=True)
    save_file(
        {
            "bias": (model.by_hand.bias.detach() * slope + shift).numpy(),
            "by_hand": (model.by_hand.weight.detach()[0] * slope).numpy(),
            "words": (model.words.weight.detach()[:, 0] * slope).numpy(),
            "apart": (model.apart.weight.detach()[0] * slope * SCALE_APART).numpy(),
            "alike": (model.alike.weight.detach()[0] * slope * SCALE_ALIKE).numpy(),
        },
        WEIGHTS / f"{vectors.name}.safetensors",
    )


def aside(pairs: list[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """(four fifths, a fifth), with no text on both sides."""
    rest, fifth = split(pairs, sides=5)[1:], split(pairs, sides=5)[0]
    return [pair for part in rest for pair in part], fifth


if __name__ == "__main__":
    main()
