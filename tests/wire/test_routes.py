"""Completions beyond the simple case, models, tokens and probes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from penstock.core.types import Health
from penstock.upstream.fake import FakeUpstream, Script

TEXT = "/v1/completions"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_batch_numbers_its_choices_prompt_by_prompt(make_gateway: Any, stream: bool) -> None:
    gateway = make_gateway(Script(pieces=("a", "b")), Script(pieces=("c",)), Script(pieces=("d",)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url="http://gateway") as http:
        answer = await http.post(TEXT, json={"prompt": ["one", "two", "three"], "n": 2, "stream": stream})
    texts = dict.fromkeys(range(6), "")
    for choice in _choices(answer):
        texts[choice["index"]] += choice["text"]
    by_prompt = {request.prompt: script for request, script in zip(gateway.upstream.requests, ["ab", "c", "d"], strict=True)}
    assert [by_prompt[prompt] for prompt in ("one", "two", "three") for _ in range(2)] == [texts[index] for index in range(6)]
    if not stream:
        assert answer.json()["usage"]["prompt_tokens"] == len("onetwothree")
        assert answer.json()["usage"]["completion_tokens"] == 2 * len("abcd")


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("hi", [("hi", None)]),
        (["hi", "ho"], [("hi", None), ("ho", None)]),
        ([1, 2, 3], [(None, (1, 2, 3))]),
        ([[1], [2, 3]], [(None, (1,)), (None, (2, 3))]),
        ("", [("", None)]),
    ],
)
async def test_every_kind_of_prompt(http: httpx.AsyncClient, gateway: Any, prompt: object, asked: object) -> None:
    assert (await http.post(TEXT, json={"prompt": prompt})).status_code == 200
    seen = sorted(gateway.upstream.requests, key=lambda request: request.id.rpartition("-")[2])
    assert [(request.prompt, request.prompt_token_ids) for request in seen] == asked


async def test_echo_of_token_ids_shows_their_text(http: httpx.AsyncClient) -> None:
    answer = await http.post(TEXT, json={"prompt": [65, 66], "echo": True, "logprobs": 1})
    (choice,) = answer.json()["choices"]
    assert choice["text"] == "ABHello, world."
    assert choice["logprobs"]["tokens"][:3] == ["A", "B", "H"]
    assert choice["logprobs"]["token_logprobs"][:2] == [None, -0.5]
    assert choice["logprobs"]["top_logprobs"][0] is None


@pytest.mark.parametrize("stream", [False, True])
async def test_scoring_a_prompt_generates_nothing_to_see(http: httpx.AsyncClient, stream: bool) -> None:
    answer = await http.post(TEXT, json={"prompt": "AB", "echo": True, "logprobs": 0, "max_tokens": 0, "stream": stream})
    choices = _choices(answer)
    assert "".join(choice["text"] for choice in choices) == "AB"
    assert [token for choice in choices for token in choice["logprobs"]["tokens"]] == ["A", "B"]
    assert choices[-1]["finish_reason"] == "length"


async def test_prompt_logprobs_by_token_id(http: httpx.AsyncClient) -> None:
    text = (await http.post(TEXT, json={"prompt": "AB", "prompt_logprobs": 2})).json()["choices"][0]["prompt_logprobs"]
    expected = {"66": {"logprob": -0.5, "rank": 1, "decoded_token": "B"}, "67": {"logprob": -1.5, "rank": 2, "decoded_token": "C"}}
    assert text == [None, expected]
    chat = (await http.post(CHAT, json={"messages": MESSAGES, "prompt_logprobs": 0})).json()["prompt_logprobs"]
    assert chat[1] == {str(ord("s")): {"logprob": -0.5, "rank": None, "decoded_token": "s"}}


async def test_token_ids_beside_the_text(http: httpx.AsyncClient) -> None:
    text = (await http.post(TEXT, json={"prompt": "AB", "return_token_ids": True, "max_tokens": 4})).json()["choices"][0]
    assert (text["prompt_token_ids"], text["token_ids"][:2]) == ([65, 66], [72, 101])
    chat = (await http.post(CHAT, json={"messages": MESSAGES, "return_token_ids": True})).json()
    assert chat["prompt_token_ids"] == [ord(char) for char in "user: hi\n"]
    assert chat["choices"][0]["token_ids"] == [ord(char) for char in "Hello, world."]


async def test_models(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert listed["data"] == [(await http.get(f"/v1/models/{name}")).json() for name in ("fake", "auto")]
    assert listed["data"][1]["root"] == "fake"
    assert listed["data"][0] | {"id": "fake", "object": "model", "owned_by": "penstock", "max_model_len": 4096} == listed["data"][0]


async def test_an_unknown_model_names_the_closest(http: httpx.AsyncClient) -> None:
    for answer in (
        await http.get("/v1/models/fakes"),
        await http.post("/tokenize", json={"model": "fakes", "prompt": "x"}),
        await http.post(TEXT, json={"model": "fakes", "prompt": "x"}),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "did you mean 'fake'?" in answer.json()["error"]["message"]


async def test_a_models_name_may_have_slashes(make_gateway: Any) -> None:
    app = make_gateway(upstream=FakeUpstream(model="org/model")).app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        assert (await http.get("/v1/models/org/model")).json()["id"] == "org/model"


async def test_tokenize_and_back(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/tokenize", json={"prompt": "hé", "return_token_strs": True})).json()
    assert answer == {"count": 2, "max_model_len": 4096, "tokens": [104, 233], "token_strs": ["h", "é"]}
    assert (await http.post("/detokenize", json={"tokens": answer["tokens"]})).json() == {"prompt": "hé"}
    chat = (await http.post("/tokenize", json={"messages": MESSAGES})).json()
    assert (chat["count"], chat["token_strs"]) == (len("user: hi\n"), None)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": MESSAGES}, "prompt"),
        ("/tokenize", {"prompt": "x", "add_generation_prompt": True}, "add_generation_prompt"),
        ("/tokenize", {"messages": MESSAGES, "tools": [{}]}, "tools"),
        ("/tokenize", {"promt": "x"}, "promt"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [0x110000]}, "tokens"),
    ],
)
async def test_refusals_of_the_token_routes(http: httpx.AsyncClient, path: str, body: dict[str, Any], param: str) -> None:
    answer = await http.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_ready_says_why_not(http: httpx.AsyncClient, gateway: Any) -> None:
    assert (await http.get("/ready")).status_code == 200
    gateway.upstream.state = Health(state="stalled", why="no step for 31 s")
    answer = await http.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"state": "stalled", "why": "fake: no step for 31 s"})
    assert answer.headers["retry-after"]
    assert (await http.get("/health")).status_code == 200


async def test_metrics_count_requests(http: httpx.AsyncClient) -> None:
    await http.post(CHAT, json={"messages": MESSAGES})
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="fake"} 1.0' in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("GET", CHAT, 405), ("POST", "/health", 405), ("GET", "/v1/models/", 404)]
)
async def test_no_such_route(http: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


def _choices(answer: httpx.Response) -> list[dict[str, Any]]:
    """The choices of a whole answer, or of every chunk of a stream."""
    import json

    if not answer.headers["content-type"].startswith("text/event-stream"):
        return list(answer.json()["choices"])
    events = [event for event in answer.text.removesuffix("data: [DONE]\n\n").split("\n\n") if event.startswith("data: ")]
    return [choice for event in events for choice in json.loads(event.removeprefix("data: "))["choices"]]
