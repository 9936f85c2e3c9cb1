"""Logistic regression over hashed n-grams and dense features, in torch: full batches, Adam, the same result for the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from penstock.guard.features import BUCKETS, Grams

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head in full precision: score = grams · `buckets` + dense · `dense` + `bias`."""

    buckets: Floats  # [BUCKETS]
    dense: Floats  # [features]
    bias: float

    def logits(self, rows: Sequence[Grams], dense: Floats) -> Floats:
        """[rows]."""
        sparse = np.array([float(row.weights @ self.buckets[row.buckets]) for row in rows])
        return np.asarray(sparse + dense @ self.dense + self.bias, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Penalty:
    """Weight decay of each kind of feature: n-grams are many and seen seldom, dense ones are few."""

    grams: float = 2e-5
    dense: float = 1e-4
    steps: int = 250
    rate: float = 0.05


def fit(rows: Sequence[Grams], dense: Floats, labels: Floats, weights: Floats, penalty: Penalty = Penalty()) -> Fitted:  # noqa: B008 (frozen)
    """The head that tells `labels` (0 or 1) apart; `weights` says how much each row counts."""
    torch.manual_seed(0)
    mean, spread = dense.mean(axis=0), dense.std(axis=0) + 1e-2
    scaled = torch.from_numpy(((dense - mean) / spread).astype(np.float32))
    ids = torch.from_numpy(np.concatenate([row.buckets for row in rows]))
    values = torch.from_numpy(np.concatenate([row.weights for row in rows]))
    offsets = torch.from_numpy(np.cumsum([0, *(len(row.buckets) for row in rows[:-1])]))
    target, importance = torch.from_numpy(labels), torch.from_numpy(weights / weights.sum())
    table = torch.zeros(BUCKETS, 1, requires_grad=True)
    line = torch.zeros(dense.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([table, line, bias], lr=penalty.rate)
    for step in range(penalty.steps):
        for group in optimizer.param_groups:
            group["lr"] = penalty.rate * (1 - step / penalty.steps)
        optimizer.zero_grad()
        sparse = F.embedding_bag(ids, table, offsets, mode="sum", per_sample_weights=values)[:, 0]
        logits = sparse + scaled @ line + bias
        loss = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * importance).sum()
        loss = loss + penalty.grams * table.square().sum() + penalty.dense * line.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weights_of = (line.detach().numpy() / spread).astype(np.float32)
    return Fitted(table.detach().numpy()[:, 0], weights_of, float(bias.item()) - float(mean @ weights_of))
