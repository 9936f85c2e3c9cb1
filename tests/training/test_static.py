"""The distillation of the static encoder: its algebra, its size, and that it learns what texts tell it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest

from penstock.embed.minilm import unit
from penstock.embed.static import StaticTable
from training.sentences import texts
from training.static import Bags, principal, regress, save


def dense(bags: list[list[int]], count: int) -> np.ndarray:
    return np.array([np.bincount(bag, minlength=count) for bag in bags], dtype=np.float32)


def test_sums_and_spread_are_a_matrix_and_its_transpose() -> None:
    bags = [[0, 3], [2], [3, 3, 1], [0]]
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert np.allclose(Bags.of(bags).sums(rows), dense(bags, 5) @ rows, atol=1e-6)
    sums = rows[:4]
    assert np.allclose(Bags.of(bags).spread(sums, 5), dense(bags, 5).T @ sums, atol=1e-6)


def test_rows_move_to_where_texts_want_them_and_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.static.RIDGE", 1.0)
    rng = np.random.default_rng(1)
    true, begun = (rng.normal(size=(40, 8)).astype(np.float32) for _ in range(2))
    bags = [list(rng.integers(0, 30, size=rng.integers(1, 6))) for _ in range(2000)]
    wanted = unit(dense(bags, 40) @ true)
    found = regress(Bags.of(bags), wanted, begun)
    before, after = ((unit(dense(bags, 40) @ rows) * wanted).sum(axis=1).mean() for rows in (begun, found))
    assert before < 0.3 and after > 0.7
    assert np.array_equal(found[30:], begun[30:])  # no text has these


def test_principal_directions_are_orthonormal_and_the_widest_first() -> None:
    vectors = np.random.default_rng(2).normal(size=(200, 3)).astype(np.float32) * np.array([1, 5, 0.1], dtype=np.float32) + 7
    basis = principal(vectors, 2)
    assert np.allclose(basis.T @ basis, np.eye(2), atol=1e-5)
    assert abs(basis[1, 0]) > 0.9


def test_what_is_saved_can_be_read_and_is_right_to_a_percent(tmp_path: Path) -> None:
    words = ["[UNK]", "cat", "dog", "##s"]
    rows = np.random.default_rng(3).normal(size=(4, StaticTable.DIMENSIONS)).astype(np.float32)
    save(tmp_path, words, rows, np.zeros(StaticTable.DIMENSIONS, dtype=np.float32))
    (made,) = StaticTable(tmp_path).encode(["cats dog"])
    assert made @ unit(rows[[1, 2, 3]].sum(axis=0, keepdims=True))[0] > 0.999


def test_texts_are_the_same_from_the_same_seed_and_meet_every_word() -> None:
    words = [f"word{letter}" for letter in "abcdefgh"]
    made = list(islice(texts(Random(5), words), 600))
    assert made == list(islice(texts(Random(5), words), 600))
    assert all(any(word in text for text in made) for word in words[1:])  # the first is "the", which the frames hold
    assert len(set(made)) > 450
