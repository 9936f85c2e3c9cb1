"""The embedding model against transformers' BERT, text by text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from penstock.embed.minilm import MiniLM, batches, find_model

TEXTS = [
    "A man is eating food.",
    "Ein Mann isst gerade. 北京 is a city; naïve café №5!",
    "The girl is carrying a baby. " * 30,
    "",
    "x",
    "Tabs\tand\nnew lines  and   spaces",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    found = find_model()
    if found is None:
        pytest.skip("the extra `embeddings` is not installed")
    return found


def expected(folder: Path, texts: list[str]) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()


def test_vectors_are_those_of_transformers(folder: Path) -> None:
    model = MiniLM(folder)
    items = model.tokenize(TEXTS)
    assert np.abs(model.embed(items) - expected(folder, TEXTS)).max() < 2e-6


def test_a_vector_does_not_depend_on_its_batch(folder: Path) -> None:
    model = MiniLM(folder)
    items = model.tokenize(TEXTS)
    together = model.embed(items)
    for batch in batches(items, most_tokens=64):
        for place, vector in zip(batch, model.embed([items[place] for place in batch]), strict=True):
            assert np.abs(vector - together[place]).max() < 2e-6
