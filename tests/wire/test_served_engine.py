"""The official `openai` client against `penstock serve` with its own engine and the built-in model."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from serving import Server

QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]
MODEL = "penstock-mini"


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server]) -> Server:
    return serve_module()


@pytest.fixture
def sync_client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(server: Server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.feature("greedy")
def test_the_streamed_answer_is_the_unstreamed_one(sync_client: OpenAI) -> None:
    whole = sync_client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    chunks = list(
        sync_client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content
    assert "42" in text
    assert whole.choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len(chunks) > 5, "it streams"


@pytest.mark.feature("seed", "n choices")
async def test_same_seed_same_text_whatever_runs_beside_it(async_client: AsyncOpenAI) -> None:
    import asyncio

    def ask(seed: int, n: int = 1) -> object:
        body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 40, "temperature": 1.0, "seed": seed, "n": n}
        return async_client.completions.create(**body, extra_body={"ignore_eos": True})

    alone = (await ask(7)).choices[0].text
    crowd = await asyncio.gather(*(ask(seed) for seed in (7, 1, 2, 3, 7, 4)), ask(7, n=3))
    texts = [answer.choices[0].text for answer in crowd]
    assert texts[0] == texts[4] == texts[6] == alone
    assert len(set(texts)) == 5
    three = [choice.text for choice in crowd[6].choices]
    assert len(set(three)) == 3, "each choice has a seed of its own"
    assert [choice.index for choice in crowd[6].choices] == [0, 1, 2]


@pytest.mark.feature("logprobs")
def test_logprobs_are_a_distribution_and_belong_to_the_text(sync_client: OpenAI) -> None:
    answer = sync_client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, logprobs=True, top_logprobs=5)
    content = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in content).startswith(answer.choices[0].message.content)
    for entry in content:
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs), "greedy takes the best"
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1 + 1e-4


@pytest.mark.feature("prompt logprobs")
def test_echo_scores_the_prompt_as_generation_would(sync_client: OpenAI) -> None:
    told = sync_client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=8, temperature=0, logprobs=1, extra_body={"return_token_ids": True}
    ).choices[0]
    prompt = [*told.prompt_token_ids, *told.token_ids]
    scored = sync_client.completions.create(model=MODEL, prompt=prompt, max_tokens=0, echo=True, logprobs=1).choices[0]
    assert scored.logprobs.token_logprobs[0] is None
    assert scored.logprobs.token_logprobs[-8:] == pytest.approx(told.logprobs.token_logprobs, abs=1e-3)


@pytest.mark.feature("stop strings")
async def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(async_client: AsyncOpenAI) -> None:
    story = {"model": MODEL, "messages": [{"role": "user", "content": "tell me a story"}], "temperature": 0}
    whole = (await async_client.chat.completions.create(**story)).choices[0].message.content
    stop = whole[len(whole) // 2 :][:7]
    cut = ""
    reasons = []
    async for chunk in await async_client.chat.completions.create(**story, stop=stop, stream=True):
        cut += chunk.choices[0].delta.content or ""
        reasons.append(chunk.choices[0].finish_reason)
    assert cut == whole[: whole.index(stop)]
    assert reasons[-1] == "stop"


@pytest.mark.feature("prefix cache")
def test_a_thousand_token_prefix_is_computed_once(sync_client: OpenAI) -> None:
    prefix = [300 + i % 700 for i in range(1000)]
    ask = {"model": MODEL, "max_tokens": 1, "temperature": 0}
    first = sync_client.completions.create(prompt=[*prefix, 11, 12, 13], **ask)
    second = sync_client.completions.create(prompt=[*prefix, 21, 22, 23], **ask)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == 992  # whole blocks of 16


@pytest.mark.feature("bad words", "allowed tokens", "min tokens")
def test_what_may_not_be_said_is_not_said(sync_client: OpenAI) -> None:
    ask = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}
    extra = {"return_token_ids": True}
    plain = sync_client.completions.create(**ask, extra_body=extra).choices[0]
    word = plain.text.split()[1]
    banned = sync_client.completions.create(**ask, extra_body=extra | {"bad_words": [word]}).choices[0]
    assert f" {word}" not in banned.text
    allowed = sync_client.completions.create(**ask, extra_body=extra | {"allowed_token_ids": plain.token_ids[:3]}).choices[0]
    assert set(allowed.token_ids) <= set(plain.token_ids[:3])
    long = sync_client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=60, extra_body={"min_tokens": 50})
    assert long.usage.completion_tokens >= 50


@pytest.mark.parametrize(
    ("change", "status", "param", "says"),
    [
        ({"model": "penstock-mino"}, 404, "model", "penstock-mini"),
        ({"max_tokens": 5000}, 400, "max_tokens", "2048"),
        ({"messages": [{"role": "user", "content": "x " * 20_000}]}, 400, "messages", "2048"),
        ({"temperature": 9}, 400, "temperature", "9"),
        ({"temprature": 1}, 400, "temprature", "temperature"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools", "tools"),
    ],
)
def test_errors_say_what_and_which(sync_client: OpenAI, change: dict[str, object], status: int, param: str, says: str) -> None:
    body = {"model": MODEL, "messages": QUESTION, **change}
    with pytest.raises(openai.APIStatusError) as caught:
        sync_client.post("/chat/completions", body=body, cast_to=httpx.Response)
    assert caught.value.status_code == status
    assert caught.value.body["param"] == param
    assert says in caught.value.body["message"]
    assert caught.value.response.headers["x-request-id"]


def test_tokenize_and_back(server: Server) -> None:
    text = "What is 17 + 25? é 漢字"
    tokens = httpx.post(f"{server.url}/tokenize", json={"model": MODEL, "prompt": text, "add_special_tokens": False}).json()
    assert tokens["count"] == len(tokens["tokens"])
    assert httpx.post(f"{server.url}/detokenize", json={"model": MODEL, "tokens": tokens["tokens"]}).json()["prompt"] == text
