"""The table that ships: small, whole, and near MiniLM in what it says is near."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from penstock.core.errors import LoadError
from penstock.embed import open_vectors
from penstock.embed.static import STATIC_FOLDER, StaticTable


@pytest.fixture(scope="module")
def table() -> StaticTable:
    return StaticTable(STATIC_FOLDER)


def test_the_folder_is_whole_and_at_most_four_megabytes() -> None:
    assert {file.name for file in STATIC_FOLDER.iterdir()} == {*StaticTable.FILES, "MODEL_CARD.md"}
    assert sum(file.stat().st_size for file in STATIC_FOLDER.iterdir()) <= 4_000_000
    assert "Apache-2.0" in (STATIC_FOLDER / "MODEL_CARD.md").read_text()


def test_what_is_about_the_same_lies_close(table: StaticTable) -> None:
    reset, again, boil = table.encode(
        ["How do I reset my password?", "i forgot my password, how can I change it", "How long do I boil an egg?"]
    )
    assert reset @ again > 0.6 > 0.35 > reset @ boil
    assert reset.shape == (StaticTable.DIMENSIONS,)


@pytest.mark.parametrize("text", ["", "   ", "?", "zürich", "北京", "\x00", "word " * 20_000], ids=lambda text: repr(text[:8]))
def test_every_text_has_a_vector_of_length_one(table: StaticTable, text: str) -> None:
    assert np.linalg.norm(table.encode([text])[0]) == pytest.approx(1.0, abs=1e-5)


def test_a_vector_does_not_depend_on_its_batch_or_on_case(table: StaticTable) -> None:
    texts = ["Where is Paris?", "a much longer question about something else entirely", "WHERE IS PARIS?"]
    together = table.encode(texts)
    assert np.allclose(together, [table.encode([text])[0] for text in texts], atol=1e-6)
    assert np.allclose(together[0], together[2])


def test_words_count_alike_wherever_they_stand(table: StaticTable) -> None:
    one, other = table.encode(["the dog bites the man", "the man bites the dog"])
    assert one @ other == pytest.approx(1.0, abs=1e-5)  # what it does not cover


async def test_it_serves_as_the_encoder() -> None:
    vectors = open_vectors("static")
    made = await vectors.of(["one text", "another text", "one text"])
    assert made.shape == (3, vectors.dimensions) and (made[0] == made[2]).all()
    assert vectors.digest == open_vectors("static").digest != open_vectors("auto").name
    await vectors.close()


@pytest.mark.parametrize("broken", StaticTable.FILES)
def test_a_broken_table_says_so(tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "static"
    shutil.copytree(STATIC_FOLDER, folder)
    (folder / broken).unlink()
    with pytest.raises(LoadError, match="static encoder"):
        StaticTable(folder)
