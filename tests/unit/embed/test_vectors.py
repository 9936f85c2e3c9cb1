"""What the parts that compare meanings get from their one encoder: each text computed once, in order, whatever its length."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import LoadError, MissingExtra, NotReady
from penstock.embed import TextVectors, open_vectors
from penstock.embed.minilm import Floats, find_model, unit, windows
from penstock.embed.vectors import ENTRY_BYTES, MOST_TEXTS, Source


class Letters:
    """An encoder that counts letters, notes what it was asked, and waits for `go` where it is told to."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def encode(self, texts: Sequence[str]) -> Floats:
        self.go.wait(10)
        self.asked.append(list(texts))
        return unit(np.array([[1 + text.count("a"), 1 + text.count("b")] for text in texts], dtype=np.float32))


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
async def vectors(letters: Letters) -> AsyncIterator[TextVectors]:
    made = TextVectors(Source("letters", 2, (), lambda: letters))
    yield made
    letters.go.set()
    await made.close()


async def test_a_text_is_computed_once_for_all_who_ask(vectors: TextVectors, letters: Letters) -> None:
    letters.go.clear()
    asking = [asyncio.create_task(vectors.of(["ab", "aab"])) for _ in range(5)]
    await asyncio.sleep(0)
    letters.go.set()
    first, *others = await asyncio.gather(*asking)
    assert all((other == first).all() for other in others)
    assert (await vectors.of(["aab", "ab", "ab"]) == first[[1, 0, 0]]).all()
    assert sorted(text for batch in letters.asked for text in batch) == ["aab", "ab"]


async def test_what_waits_together_is_computed_together(vectors: TextVectors, letters: Letters) -> None:
    letters.go.clear()
    asking = [asyncio.create_task(vectors.of(["a" * n])) for n in range(6)]
    await asyncio.sleep(0.01)
    letters.go.set()
    await asyncio.gather(*asking)
    assert len(letters.asked) == 1  # the worker starts once all six wait


async def test_a_long_call_leaves_room_for_others(vectors: TextVectors, letters: Letters) -> None:
    letters.go.clear()
    long = asyncio.create_task(vectors.of(["a" * n for n in range(MOST_TEXTS * 3)]))
    await asyncio.sleep(0.01)
    short = asyncio.create_task(vectors.of(["b"]))
    await asyncio.sleep(0.01)
    letters.go.set()
    assert (await short).shape == (1, 2)
    assert (await long).shape == (MOST_TEXTS * 3, 2)
    assert ["b"] in letters.asked[:2]
    assert max(map(len, letters.asked)) <= MOST_TEXTS


async def test_a_caller_that_left_is_passed_over(vectors: TextVectors, letters: Letters) -> None:
    letters.go.clear()
    first = asyncio.create_task(vectors.of(["a"]))
    await asyncio.sleep(0.01)
    left = asyncio.create_task(vectors.of(["nobody waits for this"]))
    stays = asyncio.create_task(vectors.of(["b"]))
    await asyncio.sleep(0.01)
    left.cancel()
    letters.go.set()
    await asyncio.gather(first, stays)
    assert letters.asked == [["a"], ["b"]]


async def test_closed_it_says_so(vectors: TextVectors, letters: Letters) -> None:
    letters.go.clear()
    running, waiting = (asyncio.create_task(vectors.of([text])) for text in ("a", "b"))
    await asyncio.sleep(0.01)
    waiting = asyncio.create_task(vectors.of(["b"]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(vectors.close())
    await asyncio.sleep(0.01)
    letters.go.set()
    await closing
    assert (await running).shape == (1, 2)
    with pytest.raises(NotReady, match="letters"):
        await waiting
    with pytest.raises(NotReady):
        await vectors.of(["c"])


async def test_a_broken_model_is_everybodys_error_and_tried_again() -> None:
    tries: list[int] = []

    def load() -> Letters:
        tries.append(1)
        if len(tries) == 1:
            raise LoadError("the table is gone", hint="install it again")
        return Letters()

    vectors = TextVectors(Source("letters", 2, (), load))
    results = await asyncio.gather(vectors.of(["a"]), vectors.of(["b"]), return_exceptions=True)
    assert all(isinstance(result, LoadError) for result in results)
    assert (await vectors.of(["a"])).shape == (1, 2)
    await vectors.close()


def test_what_is_kept_is_bounded_in_bytes_and_the_oldest_leave(letters: Letters) -> None:
    vectors = TextVectors(Source("letters", 2, (), lambda: letters), max_bytes=3 * (2 * 4 + ENTRY_BYTES))
    for text in ("a", "b", "ab", "a", "ba"):  # "b" is the one not used for longest
        vectors.now([text])
    letters.asked.clear()
    vectors.now(["a", "ab", "ba"])
    assert letters.asked == []
    vectors.now(["b"])
    assert letters.asked == [["b"]]


def test_now_is_the_same_as_of_and_takes_any_text(letters: Letters) -> None:
    vectors = TextVectors(Source("letters", 2, (), lambda: letters))
    odd = ["", "\ud800a", "a\x00b", "b" * 10_000]
    assert vectors.now(odd).shape == (4, 2)
    assert vectors.now([]).shape == asyncio.run(vectors.of([])).shape == (0, 2)


def test_the_digest_tells_encoders_and_weights_apart(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    digests = set()
    for name, content in (("a", b"1"), ("a", b"2"), ("b", b"1")):
        file.write_bytes(content)
        digests.add(TextVectors(Source(name, 2, (file,), Letters)).digest)
    assert len(digests) == 3
    file.write_bytes(b"1")
    assert TextVectors(Source("a", 2, (file,), Letters)).digest in digests


def test_minilm_is_chosen_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_model() is not None:
        assert open_vectors("auto").name == open_vectors("minilm").name == "all-minilm-l6-v2"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert open_vectors("auto").name == open_vectors("static").name == "static-minilm"
    with pytest.raises(MissingExtra, match="embeddings"):
        open_vectors("minilm")


@given(st.integers(0, 6000), st.integers(3, 256))
def test_windows_are_bounded_marked_and_of_like_length(length: int, most: int) -> None:
    cut = windows((-1, *range(length), -2), most)
    assert all(window[0] == -1 and window[-1] == -2 and len(window) <= most for window in cut)
    inner = [window[1:-1] for window in cut]
    assert max(map(len, inner)) - min(map(len, inner)) <= 1
    read = [token for window in inner for token in window]
    assert read == sorted(set(read))
    assert read[:1] == ([0] if length else []) and read[-1:] == ([length - 1] if length else [])
    if length <= 16 * (most - 2):
        assert read == list(range(length))


def minilm() -> TextVectors:
    if find_model() is None:
        pytest.skip("the extra `embeddings` is not installed")
    return open_vectors("minilm")


def test_a_long_text_is_near_what_it_says_throughout() -> None:
    vectors = minilm()
    long = "The cat sat on the mat and slept. " * 200
    about, other = vectors.now([long, "A cat sleeps on a mat."]), vectors.now(["The central bank raised interest rates."])
    assert vectors.dimensions == about.shape[1] == 384
    assert np.allclose(np.linalg.norm(about, axis=1), 1, atol=1e-5)
    assert about[0] @ about[1] > 0.4 > 0.2 > about[0] @ other[0]


async def test_no_torch_is_loaded() -> None:
    script = (
        "import sys; from penstock.embed import open_vectors; v = open_vectors('auto')\n"
        "assert v.now(['a text']).shape == (1, v.dimensions); v.digest; print('torch' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().strip() == "False"
