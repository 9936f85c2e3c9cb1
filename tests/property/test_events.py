"""Server-sent events are read alike however the network cuts them."""

from __future__ import annotations

import asyncio
import itertools
import json
from types import SimpleNamespace
from typing import cast

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from fakes.asking import chat
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.types import Delta
from penstock.upstream.http import Answer
from penstock.upstream.openai_answer import OpenAIReader

WORDS = ["Hello", " wörld", " 🙂", "\n\ndata: no", "", "."]
NEWLINES = st.sampled_from(["\n", "\r\n"])


def stream(newline: str, space: str, *, done: bool) -> bytes:
    """A stream as servers write them: comments, event names, two choices in turn."""
    lines = [": a comment", "", "event: chunk"]
    for word in WORDS:
        for index in (0, 1):
            choice = {"index": index, "delta": {"content": word}}
            lines += [f"data:{space}{json.dumps({'choices': [choice]}, ensure_ascii=False)}", ""]
    ends = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in (0, 1)]
    last = {"choices": ends, "usage": {"prompt_tokens": 3, "completion_tokens": 10}}
    lines += [f"data:{space}{json.dumps(last)}", "", *(["data: [DONE]", ""] if done else [])]
    return newline.join(lines).encode()


@given(NEWLINES, st.sampled_from(["", " "]), st.booleans(), st.lists(st.integers(0, 1200), max_size=30))
def test_cuts_change_nothing(newline: str, space: str, done: bool, cuts: list[int]) -> None:
    data = stream(newline, space, done=done)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    deltas, reader = asyncio.run(read(pieces))
    for index in (0, 1):
        assert "".join(delta.text for delta in deltas if delta.index == index) == "".join(WORDS)
        assert sum(delta.num_pieces for delta in deltas if delta.index == index and delta.text) == len([word for word in WORDS if word])
    assert next(iter(reader.end())).usage.completion_tokens == 10


async def read(pieces: list[bytes]) -> tuple[list[Delta], OpenAIReader]:
    """Each piece comes alone."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    content = aiohttp.StreamReader(protocol, 2**16, loop=loop)
    answer = Answer("there", cast(aiohttp.ClientResponse, SimpleNamespace(content=content)))
    reader = OpenAIReader("there", chat(n=2))
    deltas: list[Delta] = []

    async def feed() -> None:
        for piece in pieces:
            content.feed_data(piece)
            await asyncio.sleep(0)
        content.feed_eof()

    feeding = asyncio.create_task(feed())
    async for events in answer.events():
        deltas += cast(list[Delta], reader.read(events))
    await feeding
    return deltas, reader
