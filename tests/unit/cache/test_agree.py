"""When two answers count as the same. In doubt they do not."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.cache.agree import same_answer

CLOSE = np.array([[1.0, 0.0], [0.95, 0.3122499]], dtype=np.float32)
FAR = np.array([[1.0, 0.0], [0.6, 0.8]], dtype=np.float32)
LONG = "Boil the rice in twice its volume of water for twelve minutes, then let it rest with the lid on before you serve it."
REWORDED = "To cook the rice, boil it for twelve minutes in twice its volume of water, and let it rest under the lid before serving."


@pytest.mark.parametrize(
    ("a", "b"), [("Paris.", "paris"), ("Paris", "It is Paris."), ("Yes.", "yes"), ("42", "42."), ("The answer is 12.", "12")]
)
def test_short_answers_with_the_same_words_are_the_same(a: str, b: str) -> None:
    assert same_answer(a, b, None)


@pytest.mark.parametrize(
    ("a", "b"),
    [("Paris", "London"), ("Yes, you can.", "No, you can't."), ("42", "43"), ("-5", "5"), ("3.5", "35"), ("", ""), ("Paris", ""),
     ("It is safe.", "It is not safe."), ("About 20 km", "About 20 miles"), ("Yes.", "Ask a doctor.")],
)  # fmt: skip
def test_answers_that_say_other_things_are_not(a: str, b: str) -> None:
    assert not same_answer(a, b, CLOSE)


def test_long_answers_agree_by_their_vectors_and_their_numbers() -> None:
    assert same_answer(LONG, REWORDED, CLOSE)
    assert not same_answer(LONG, REWORDED, FAR)
    assert not same_answer(LONG, REWORDED, None)
    assert not same_answer(LONG, REWORDED.replace("twelve", "twenty"), CLOSE)
    assert not same_answer(LONG, REWORDED.replace("boil it", "do not boil it"), CLOSE)
    assert not same_answer(LONG, LONG + " " + " ".join(["And then there is more to say about it."] * 9), CLOSE)
