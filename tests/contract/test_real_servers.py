"""The upstream for OpenAI-compatible servers, against real ones: Penstock itself, and llama.cpp's server where it is installed.

`llama-server` is looked for on the PATH, or where PENSTOCK_LLAMA_SERVER says. Both serve the built-in model's weights.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gguf
import httpx
import pytest
from fakes.asking import ask, chat, finish_of, text_of, upstream_at
from golden.gguf_export import all_f32, converted
from serving import Server, tab

from penstock.core import errors
from penstock.core.types import Delta, Request, Route, Sampling
from penstock.files import locate
from penstock.upstream import Upstream

GREEDY = Sampling(temperature=0, max_tokens=12)


@pytest.fixture(scope="module")
def penstock(serve_module: Callable[..., Server]) -> str:
    server: Server = serve_module(config='[engine]\nkv_bytes = "64MiB"\nthreads = 1\n')
    return f"{server.url}/v1"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = os.environ.get("PENSTOCK_LLAMA_SERVER") or shutil.which("llama-server")
    if binary is None:
        pytest.skip("needs llama.cpp's llama-server on the PATH or in PENSTOCK_LLAMA_SERVER")
    model = tmp_path_factory.mktemp("llama") / "mini.gguf"
    write_gguf(Path(locate("penstock-mini").path), model)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["-m", model, "--port", port, "-t", 1, "-c", 2048, "-np", 2, "--alias", "penstock-mini", "--jinja", "--no-webui"]
    with (tmp_path_factory.getbasetemp() / "llama.log").open("wb") as log:
        process = subprocess.Popen([binary, *map(str, flags)], stdout=log, stderr=log)
    try:
        until_healthy(f"http://127.0.0.1:{port}/health", process, Path(log.name))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["penstock", "llama"])
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    async with upstream_at(request.getfixturevalue(request.param)) as upstream:
        yield upstream


async def test_streamed_and_whole_answers_are_the_same(upstream: Upstream) -> None:
    streamed, whole = [await ask(upstream, chat("Tell me a story.", streams=streams, sampling=GREEDY)) for streams in (True, False)]
    assert text_of(streamed) == text_of(whole) != ""
    for events in (streamed, whole):
        usage = finish_of(events).usage
        assert usage.completion_tokens == 12
        assert not usage.estimated
        assert finish_of(events).reason == "length"


async def test_texts_and_chats_and_stop_strings(upstream: Upstream) -> None:
    request = Request(id="r", model="", prompt="Once upon a time", sampling=GREEDY)
    text = text_of(await ask(upstream, request))
    assert text
    word = text.split()[1]
    stopped = await ask(upstream, chat("Tell me a story.", sampling=Sampling(temperature=0, max_tokens=200, stop=(" ",))))
    assert " " not in text_of(stopped)
    assert word
    assert finish_of(stopped).reason == "stop"


async def test_logprobs_come_with_their_alternatives(upstream: Upstream) -> None:
    events = await ask(upstream, chat(sampling=Sampling(temperature=0, max_tokens=3, logprobs=2)))
    scored = [token for event in events if isinstance(event, Delta) for token in event.logprobs or ()]
    assert len(scored) == 3
    assert all(token.logprob <= 0 and len(token.top) == 2 for token in scored)


async def test_the_longest_prompt_is_known_and_longer_ones_are_refused(upstream: Upstream) -> None:
    card = upstream.models()[0]
    assert card.max_model_len is not None
    with pytest.raises(errors.ContextTooLong):
        await ask(upstream, chat("word " * card.max_model_len, sampling=GREEDY))


async def test_a_client_that_leaves_pays_for_what_came(upstream: Upstream) -> None:
    noted = tab()
    route = Route(upstream="there", model=upstream.models()[0].id)
    delivered = 0
    request = chat("Tell me a story.", sampling=Sampling(temperature=0, max_tokens=500))
    async with aclosing(upstream.stream(request, route, noted)) as events:
        async for event in events:
            delivered += event.num_pieces if isinstance(event, Delta) else 0
            if delivered >= 5:
                break
    assert noted.usage is not None
    assert delivered <= noted.usage.completion_tokens < 500


async def test_the_same_weights_say_the_same(penstock: str, llama: str) -> None:
    answers = []
    for url in (penstock, llama):
        async with upstream_at(url) as upstream:
            answers.append(await ask(upstream, chat("Tell me a story.", sampling=GREEDY)))
    assert text_of(answers[0]) == text_of(answers[1])
    assert finish_of(answers[0]).usage.prompt_tokens == finish_of(answers[1]).usage.prompt_tokens


def until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(f"llama-server did not start: {log.read_text()[-2000:]}")


def write_gguf(folder: Path, target: Path) -> None:
    """The built-in model with its tokenizer, in the form that llama.cpp reads."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    write_tokenizer(writer, folder, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    tensors = {name: tensor.float().numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    for name, array in converted(tensors, config):
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert all_f32(found, array) == gguf.GGMLQuantizationType.F32
        writer.add_tensor(found, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = [name for name, _ in sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")  # single digits, then GPT-2's pattern
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_token_types([gguf.TokenType.CONTROL if place in special else gguf.TokenType.NORMAL for place in range(len(tokens))])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)
    writer.add_chat_template(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])
