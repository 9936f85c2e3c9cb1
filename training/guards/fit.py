"""Logistic regression over hashed n-grams and dense features, in torch: full batches, Adam, the same result for the same rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

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
    steps: int = 120
    rate: float = 0.1


PENALTY = Penalty()


def fit(rows: Sequence[Grams], dense: Floats, labels: Floats, weights: Floats, penalty: Penalty = PENALTY) -> Fitted:
    """The head that tells `labels` (0 or 1) apart; `weights` says how much each row counts."""
    mean, spread = dense.mean(axis=0), dense.std(axis=0) + 1e-2
    scaled = torch.from_numpy(((dense - mean) / spread).astype(np.float32))
    table = _sparse(rows)
    across = table.t().to_sparse_csr()
    target, importance = torch.from_numpy(labels), torch.from_numpy(weights / weights.sum())
    grams, line, bias = torch.zeros(BUCKETS), torch.zeros(dense.shape[1]), torch.zeros(1)
    optimizer = torch.optim.Adam([grams, line, bias], lr=penalty.rate)
    for step in range(penalty.steps):
        for group in optimizer.param_groups:
            group["lr"] = penalty.rate * (1 - step / penalty.steps)
        off = (torch.sigmoid(table @ grams + scaled @ line + bias) - target) * importance  # the loss by each row's logit
        grams.grad = across @ off + 2 * penalty.grams * grams
        line.grad = off @ scaled + 2 * penalty.dense * line
        bias.grad = off.sum().reshape(1)
        optimizer.step()
    weights_of = (line.numpy() / spread).astype(np.float32)
    return Fitted(grams.numpy(), weights_of, float(bias.item()) - float(mean @ weights_of))


def _sparse(rows: Sequence[Grams]) -> torch.Tensor:
    """[rows, BUCKETS] in compressed rows."""
    starts = np.cumsum([0, *(len(row.buckets) for row in rows)])
    buckets, weights = (np.concatenate([getattr(row, name) for row in rows]) for name in ("buckets", "weights"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse layout a beta
        return torch.sparse_csr_tensor(torch.from_numpy(starts), torch.from_numpy(buckets), torch.from_numpy(weights), (len(rows), BUCKETS))
