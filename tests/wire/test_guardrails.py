"""Guardrails by HTTP: a server of its own, its config a TOML file, the real clients of both dialects."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from anthropic import BadRequestError as AnthropicBadRequest
from fakes.openai import openai_fake
from fakes.server import Answer, Called, Fake
from openai import AsyncOpenAI, BadRequestError
from serving import Server, servers

pytest.importorskip("re2")
pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = """
[[upstreams]]
name = "there"
url = "{url}"
models = ["m"]

[keys]
refresh_s = 0.05

[ledger]
sync_s = 0.05

[trace]
log_prompts = true

[[guard.rules]]
kind = "regex"
name = "codeword"
patterns = ['(?i)\\bcode ?word [a-z]{{4,12}}\\b']
keys = {{ boss = "allow", bob = "redact" }}
budget_s = 10

[[guard.rules]]
kind = "regex"
name = "tried"
patterns = ["tried out"]
dry_run = true
budget_s = 10

[[guard.rules]]
kind = "json"
on = ["output"]
budget_s = 10
"""
SECRET = "codeword swordfish"


@dataclass
class Guarded:
    server: Server
    fake: Fake
    keys: dict[str, str]

    def openai(self, key: str = "eve") -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.server.url}/v1", api_key=self.keys[key], max_retries=0)

    def anthropic(self, key: str = "eve") -> AsyncAnthropic:
        return AsyncAnthropic(base_url=self.server.url, api_key=self.keys[key], max_retries=0)

    def answers(self, *tokens: str, **more: Any) -> None:
        """What the model says from now on."""
        self.fake.answers[:] = [Answer(tokens=tokens, **more)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    async with openai_fake() as fake:
        with servers(folder) as start:
            server = await asyncio.to_thread(start, config=CONFIG.format(url=fake.url))
            keys = {name: await asyncio.to_thread(_key, name, folder) for name in ("eve", "bob", "boss")}
            await asyncio.sleep(0.3)  # until the server has seen them
            yield Guarded(server, fake, keys)


def _key(name: str, folder: Path) -> str:
    command = [sys.executable, "-m", "penstock", "keys", "create", name]
    environment = {**os.environ, "PENSTOCK_SERVER__DATA_DIR": str(folder / "data")}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return next(word for word in printed.split() if word.startswith("sk-"))


def asking(text: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def test_a_refused_request_is_a_400_in_each_dialect(guarded: Guarded) -> None:
    asked = len(guarded.fake.asked)
    async with guarded.openai() as client:
        with pytest.raises(BadRequestError) as refused:
            await client.chat.completions.create(**asking(f"the {SECRET}"))
        with pytest.raises(BadRequestError):
            await client.chat.completions.create(**asking(f"the {SECRET}"), stream=True)
        with pytest.raises(BadRequestError):
            await client.completions.create(model="m", prompt=SECRET)
    assert refused.value.code == "content_filter"
    assert "codeword" in refused.value.message and "swordfish" not in refused.value.message
    async with guarded.anthropic() as client:
        with pytest.raises(AnthropicBadRequest) as refused_there:
            await client.messages.create(**asking(SECRET), max_tokens=9)
    assert refused_there.value.body["error"]["type"] == "invalid_request_error"
    assert len(guarded.fake.asked) == asked


async def test_what_a_tool_returned_is_read(guarded: Guarded) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": SECRET}]
    async with guarded.openai() as client:
        with pytest.raises(BadRequestError):
            await client.chat.completions.create(model="m", messages=messages)


@pytest.mark.feature("guardrails", "streaming")
async def test_an_answer_is_cut_off_in_the_middle(guarded: Guarded) -> None:
    guarded.answers("Hello. ", "The code", "word sw", "ordfish", " is old.", " Bye.")
    async with guarded.openai() as client:
        stream = await client.chat.completions.create(**asking(), stream=True)
        choices = [chunk.choices[0] async for chunk in stream if chunk.choices]
        whole = await client.chat.completions.create(**asking())
        text = await client.completions.create(model="m", prompt="Hi")
    assert "".join(choice.delta.content or "" for choice in choices) == "Hello. The "
    assert [choice.finish_reason for choice in choices][-1] == "content_filter"
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("Hello. The ", "content_filter")
    assert (text.choices[0].text, text.choices[0].finish_reason) == ("Hello. The ", "content_filter")


@pytest.mark.feature("guardrails", "Messages")
async def test_an_answer_is_cut_off_for_anthropics_clients(guarded: Guarded) -> None:
    guarded.answers("Hello. ", "The code", "word sw", "ordfish", " is old.", thoughts=("I know",))
    async with guarded.anthropic() as client:
        async with client.messages.stream(**asking(), max_tokens=99) as stream:
            streamed = await stream.get_final_message()
        whole = await client.messages.create(**asking(), max_tokens=99)
    for message in (streamed, whole):
        assert message.stop_reason == "refusal"
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.content[1].text == "Hello. The "


@pytest.mark.feature("guardrails", "Responses")
async def test_an_answer_is_cut_off_for_the_responses_api(guarded: Guarded) -> None:
    guarded.answers("Hello. ", "The code", "word sw", "ordfish")
    async with guarded.openai() as client:
        whole = await client.responses.create(model="m", input="Hi")
    assert whole.output_text == "Hello. The "
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "content_filter")


@pytest.mark.feature("guardrails", "tools")
async def test_reasoning_and_arguments_are_redacted_where_the_key_says_so(guarded: Guarded) -> None:
    calls = (Called("c1", "f", '{"a": "codeword swordfish!"}'), Called("c2", "g", '{"b": "code word trout"}'))
    guarded.answers("It is code", "word swordfish", "!", thoughts=("the code", "word salmon"), calls=calls, finish="tool_calls")
    async with guarded.openai("bob") as client:
        stream = await client.chat.completions.create(**asking(), stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream if chunk.choices]
        whole = (await client.chat.completions.create(**asking())).choices[0].message
    assert "".join(delta.content or "" for delta in deltas) == whole.content == "It is [CODEWORD]!"
    assert "".join(delta.model_extra.get("reasoning_content") or "" for delta in deltas) == "the [CODEWORD]"
    arguments = {0: "", 1: ""}
    for delta in deltas:
        for call in delta.tool_calls or ():
            arguments[call.index] += call.function.arguments or ""
    assert arguments == {0: '{"a": "[CODEWORD]!"}', 1: '{"b": "[CODEWORD]"}'}
    assert [call.function.arguments for call in whole.tool_calls] == list(arguments.values())
    async with guarded.anthropic("bob") as client, client.messages.stream(**asking(), max_tokens=99) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.input for block in message.content[2:]] == [{"a": "[CODEWORD]!"}, {"b": "[CODEWORD]"}]


async def test_the_model_is_asked_with_placeholders_and_the_client_reads_its_own_words(guarded: Guarded) -> None:
    guarded.answers("I keep [CODE", "WORD_1] safe")
    async with guarded.openai("bob") as client:
        answer = await client.chat.completions.create(**asking(f"My {SECRET} is safe"))
    assert guarded.fake.body["messages"][0]["content"] == "My [CODEWORD_1] is safe"
    assert answer.choices[0].message.content == f"I keep {SECRET} safe"
    log = guarded.server.log.read_text()
    assert "My [CODEWORD_1] is safe" in log and "I keep [CODEWORD_1] safe" in log


async def test_a_key_may_be_let_pass(guarded: Guarded) -> None:
    guarded.answers("the codeword ", "swordfish")
    async with guarded.openai("boss") as client:
        answer = await client.chat.completions.create(**asking(SECRET))
    assert answer.choices[0].message.content == SECRET.replace("codeword", "the codeword")


async def test_json_goes_out_when_it_is_whole_and_valid(guarded: Guarded) -> None:
    body = asking(response_format={"type": "json_object"})
    async with guarded.openai() as client:
        guarded.answers('{"a"', ": 1}")
        stream = await client.chat.completions.create(**body, stream=True)
        pieces = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
        assert [piece for piece in pieces if piece] == ['{"a": 1}']
        guarded.answers('{"a"', ": 1")
        broken = await client.chat.completions.create(**body)
        assert (broken.choices[0].message.content, broken.choices[0].finish_reason) == ("", "content_filter")


@pytest.mark.feature("guardrails", "ledger")
async def test_a_dry_run_is_told_and_changes_nothing(guarded: Guarded) -> None:
    guarded.answers("also tried ", "out")
    async with guarded.openai() as client:
        answer = await client.chat.completions.create(**asking("tried out?"), extra_body={"penstock": {"explain": True}})
    assert answer.choices[0].message.content == "also tried out"
    told = [one for one in answer.model_extra["penstock"]["judgements"] if one["rule"] == "tried"]
    assert [(one["action"], one["shadow"]) for one in told] == [("refuse", True), ("refuse", True)]


@pytest.mark.feature("guardrails", "disconnect")
async def test_a_client_that_leaves_ends_a_stream_that_is_held_back(guarded: Guarded) -> None:
    guarded.answers("Now: ", "codeword sword", "x", hang_after=2)
    headers = {"authorization": f"Bearer {guarded.keys['eve']}"}
    async with httpx.AsyncClient(headers=headers) as http:
        async with http.stream("POST", f"{guarded.server.url}/v1/chat/completions", json=asking(stream=True)) as answer:
            async for line in answer.aiter_lines():
                if '"content":"Now' in line:
                    assert "codeword" not in json.dumps(line)
                    break
        for _ in range(200):
            if guarded.fake.open == 0:
                break
            await asyncio.sleep(0.02)
    assert guarded.fake.open == 0
