"""What the embedding model answers, refuses, and does with clients that leave."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import tab

from penstock.core.config import EmbeddingSettings
from penstock.core.errors import ContextTooLong, InvalidRequest, MissingExtra, NotReady, Overloaded
from penstock.core.types import Event, Finish, Request, Route, Usage, Vectors
from penstock.embed.minilm import PACKAGE, batches, find_model
from penstock.trace import Tab
from penstock.upstream.embedder import MAX_WAITING, Embedder, find_embedder

ROUTE = Route(upstream="embedder", model="minilm")


@pytest.fixture
async def embedder() -> AsyncIterator[Embedder]:
    folder = find_model()
    if folder is None:
        pytest.skip("the extra `embeddings` is not installed")
    embedder = Embedder(folder, "minilm")
    yield embedder
    await embedder.close()


def ask(*inputs: object, dimensions: int | None = None) -> Request:
    return Request(id="r", model="minilm", inputs=inputs, dimensions=dimensions)


async def answer(embedder: Embedder, request: Request, spent: Tab | None = None) -> list[Event]:
    async with aclosing(embedder.stream(request, ROUTE, spent or tab())) as events:
        return [event async for event in events]


async def vectors(embedder: Embedder, request: Request) -> tuple[tuple[float, ...], ...]:
    made, finish = await answer(embedder, request)
    assert isinstance(made, Vectors)
    assert isinstance(finish, Finish)
    assert finish.reason == "stop"
    return made.vectors


def cosine(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_texts_of_like_meaning_lie_close(embedder: Embedder) -> None:
    cat, kitten, tax = await vectors(embedder, ask("A cat sits on the mat.", "A kitten is resting on a rug.", "Taxes are due in April."))
    assert cosine(cat, cat) == pytest.approx(1.0)
    assert cosine(cat, kitten) > 0.4 > cosine(cat, tax)


async def test_vectors_come_in_the_order_of_their_inputs(embedder: Embedder) -> None:
    texts = ["short", "a good deal longer than the others are " * 5, "mid size text"]
    together = await vectors(embedder, ask(*texts))
    for text, vector in zip(texts, together, strict=True):
        (alone,) = await vectors(embedder, ask(text))
        assert cosine(vector, alone) == pytest.approx(1.0, abs=1e-5)


async def test_tokens_are_counted(embedder: Embedder) -> None:
    spent = tab()
    _, finish = await answer(embedder, ask("hello world", "hi"), spent)
    assert isinstance(finish, Finish)
    assert finish.usage == spent.usage == Usage(prompt_tokens=7)  # each text begins and ends with a token of its own


async def test_token_ids_are_taken_as_they_are(embedder: Embedder) -> None:
    (text,), (ids,) = await vectors(embedder, ask("hello world")), await vectors(embedder, ask((101, 7592, 2088, 102)))
    assert cosine(text, ids) == pytest.approx(1.0)


async def test_fewer_dimensions_are_the_first_ones_at_length_one(embedder: Embedder) -> None:
    (whole,), (short,) = await vectors(embedder, ask("hello")), await vectors(embedder, ask("hello", dimensions=64))
    assert len(whole) == 384
    assert math.hypot(*short) == pytest.approx(1.0)
    assert short == pytest.approx([value / math.hypot(*whole[:64]) for value in whole[:64]], abs=1e-6)


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        (ask("x", dimensions=385), InvalidRequest, "dimensions is 385, vectors of 'minilm' have 384"),
        (ask("word " * 300), ContextTooLong, "input 0 has 302 tokens, the model reads 256"),
        (ask((101, 30522)), InvalidRequest, "token id 30522 is outside the vocabulary"),
        (ask((101,), ()), InvalidRequest, "input 1 is empty"),
        (Request(id="r", model="minilm", prompt="hello"), InvalidRequest, "/v1/embeddings"),
    ],
)
async def test_what_cannot_be_embedded_is_refused(embedder: Embedder, request_: Request, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        await answer(embedder, request_)


async def test_a_client_that_leaves_leaves_the_thread_to_others(embedder: Embedder) -> None:
    spent = tab()
    long = asyncio.create_task(answer(embedder, ask(*["a long text, read for long " * 20] * 200), spent))
    while spent.usage is None:
        await asyncio.sleep(0.001)
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert len(await vectors(embedder, ask("hello"))) == 1
    assert 0 < spent.usage.prompt_tokens < 200 * 100  # what was computed is counted, the rest was never computed


async def test_more_than_can_wait_are_told_to_come_back(embedder: Embedder) -> None:
    crowd = await asyncio.gather(*(answer(embedder, ask("x")) for _ in range(MAX_WAITING + 5)), return_exceptions=True)
    refused = [result for result in crowd if isinstance(result, Overloaded)]
    assert len(refused) == 5
    assert refused[0].retry_after_s
    assert len(await vectors(embedder, ask("x"))) == 1


async def test_closed_it_says_so(embedder: Embedder) -> None:
    waiting = asyncio.create_task(answer(embedder, ask(*["text to read " * 20] * 100)))
    await asyncio.sleep(0.01)
    await embedder.close()
    with pytest.raises(NotReady):
        await waiting
    with pytest.raises(NotReady):
        await answer(embedder, ask("hello"))
    assert not embedder.health().ready


def test_it_is_served_where_it_is_wanted_and_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_embedder(EmbeddingSettings(enabled=False)) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_embedder(EmbeddingSettings()) is None
    with pytest.raises(MissingExtra, match="embeddings"):
        find_embedder(EmbeddingSettings(enabled=True))


async def test_it_loads_no_torch_in_a_process_without(embedder: Embedder) -> None:
    script = (
        "import asyncio, sys; from penstock.core.config import EmbeddingSettings; from penstock.core.types import *\n"
        "from penstock.trace import Tab; from penstock.upstream.embedder import find_embedder\n"
        "async def main():\n"
        "    embedder = find_embedder(EmbeddingSettings()); route = Route(upstream='e', model='m')\n"
        "    async for event in embedder.stream(Request(id='r', model='m', inputs=('hi',)), route, Tab(route, 'answer', 0, 0, 0)): pass\n"
        "    await embedder.close()\n"
        f"asyncio.run(main()); print(sorted({{'torch', '{PACKAGE}', 'sentence_transformers'}} & set(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().strip() == "[]"


@given(st.lists(st.integers(1, 256), max_size=60))
def test_batches_hold_every_item_once_and_are_bounded(lengths: list[int]) -> None:
    items = [(0,) * length for length in lengths]
    made = list(batches(items, most_tokens=512))
    assert sorted(place for batch in made for place in batch) == list(range(len(items)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= 512 for batch in made)
