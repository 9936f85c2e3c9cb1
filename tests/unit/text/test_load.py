"""Every way a tokenizer is written is read; what cannot be read is refused by name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import InvalidRequest, LoadError
from penstock.files import ModelFiles
from penstock.text import load_tokenizer
from penstock.text.gguf import from_metadata
from penstock.text.pieces import ScoredPiece

Folder = Callable[[dict[str, object]], ModelFiles]
LLAMA = {"bos_token": "<s>", "eos_token": "</s>"}


def test_tokenizer_json_round_trips(folder: Folder, byte_level_json: str) -> None:
    tokenizer = load_tokenizer(folder({"tokenizer.json": byte_level_json, "tokenizer_config.json": LLAMA}))
    text = "hello größer 你好\n\n  🦙"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (0, (1, 2))
    assert tokenizer.special_tokens == LLAMA


def test_special_tokens_written_in_the_text_become_tokens(folder: Folder, byte_level_json: str) -> None:
    tokenizer = load_tokenizer(folder({"tokenizer.json": byte_level_json, "tokenizer_config.json": LLAMA}))
    ids = tokenizer.encode("hello<|im_end|>")
    assert ids[-1] == 2
    assert tokenizer.decode(ids) == "hello"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "hello<|im_end|>"


@pytest.mark.parametrize(("add_bos", "add_eos", "around"), [(True, False, ([0], [])), (True, True, ([0], [1])), (False, False, ([], []))])
def test_config_says_what_is_put_around_a_text(
    folder: Folder, byte_level_json: str, add_bos: bool, add_eos: bool, around: tuple[list[int], list[int]]
) -> None:
    config = LLAMA | {"add_bos_token": add_bos, "add_eos_token": add_eos}
    tokenizer = load_tokenizer(folder({"tokenizer.json": byte_level_json, "tokenizer_config.json": config}))
    plain = tokenizer.encode("hello", add_special_tokens=False)
    assert tokenizer.encode("hello") == [*around[0], *plain, *around[1]]


def test_generation_config_decides_what_ends_a_generation(folder: Folder, byte_level_json: str) -> None:
    files = {"tokenizer.json": byte_level_json, "tokenizer_config.json": LLAMA}
    assert load_tokenizer(folder(files | {"generation_config.json": {"eos_token_id": [7, 1]}})).eos_token_ids == (1, 7)
    assert load_tokenizer(folder(files | {"generation_config.json": {"eos_token_id": 9}})).eos_token_ids == (1, 9)


def test_tokens_of_tokenizer_config_are_added(folder: Folder, byte_level_json: str) -> None:
    added = {"320": {"content": "<tool>", "special": False}}
    tokenizer = load_tokenizer(
        folder({"tokenizer.json": byte_level_json, "tokenizer_config.json": LLAMA | {"added_tokens_decoder": added}})
    )
    assert 320 in tokenizer.encode("hello <tool>")
    assert tokenizer.decode([320]) == "<tool>"


def test_an_added_token_out_of_place_is_refused(folder: Folder, byte_level_json: str) -> None:
    config = LLAMA | {"added_tokens_decoder": {"99999": {"content": "<tool>"}}}
    with pytest.raises(LoadError, match=r"<tool>.* should have the id 99999"):
        load_tokenizer(folder({"tokenizer.json": byte_level_json, "tokenizer_config.json": config}))


def test_an_added_token_is_its_text_even_if_it_looks_like_a_byte(folder: Folder, byte_level_json: str) -> None:
    """DeepSeek Coder has an added token "ü", and byte-level vocabularies write a byte that way."""
    written = json.loads(byte_level_json)
    written["model"]["vocab"]["<hole>"] = written["model"]["vocab"].pop("ü")  # a byte that no UTF-8 text has
    config = LLAMA | {"added_tokens_decoder": {"320": {"content": "ü", "special": False}}}
    tokenizer = load_tokenizer(folder({"tokenizer.json": written, "tokenizer_config.json": config}))
    assert tokenizer.decode(tokenizer.encode("Führer")) == "Führer"


def test_sentencepiece_model(folder: Folder, sentencepiece_model: bytes) -> None:
    tokenizer = load_tokenizer(folder({"tokenizer.model": sentencepiece_model}))
    ids = tokenizer.encode("hello world 🦙")
    assert ids[0] == tokenizer.bos_token_id == 1
    assert tokenizer.eos_token_ids == (2,)
    assert [tokenizer.token(id) for id in ids[1:3]] == [" hello", " world"]
    assert tokenizer.decode(ids) == "hello world 🦙"


def test_legacy_decides_where_the_dummy_prefix_goes(folder: Folder, sentencepiece_model: bytes) -> None:
    text = "hello</s>hello"
    legacy = load_tokenizer(folder({"tokenizer.model": sentencepiece_model, "tokenizer_config.json": {"legacy": True}}))
    assert [legacy.token(id) for id in legacy.encode(text)] == ["<s>", " hello", "</s>", " hello"]
    modern = load_tokenizer(folder({"tokenizer.model": sentencepiece_model, "tokenizer_config.json": {"legacy": False}}))
    assert [modern.token(id) for id in modern.encode(text)] == ["<s>", " hello", "</s>", "hello"]


def test_added_tokens_beside_a_sentencepiece_model(folder: Folder, sentencepiece_model: bytes, pieces: list[ScoredPiece]) -> None:
    first = len(pieces)
    added = {
        str(first): {"content": "<|im_start|>", "special": True, "rstrip": True},
        str(first + 1): {"content": "<|im_end|>", "special": True},
    }
    tokenizer = load_tokenizer(folder({"tokenizer.model": sentencepiece_model, "tokenizer_config.json": {"added_tokens_decoder": added}}))
    ids = tokenizer.encode("<|im_start|>\n hello<|im_end|>", add_special_tokens=False)
    assert [tokenizer.token(id) for id in ids] == ["<|im_start|>", " hello", "<|im_end|>"]
    assert tokenizer.eos_token_ids == (2, first + 1)


def test_tokenizer_json_and_sentencepiece_agree(folder: Folder, sentencepiece_model: bytes, llama_json: str) -> None:
    library = load_tokenizer(folder({"tokenizer.model": sentencepiece_model}))
    converted = load_tokenizer(folder({"tokenizer.json": llama_json}))
    for text in ("hello world", "  hello", "größe 你好 🦙", "</s>hello", ""):
        ids = converted.encode(text)
        assert ids == library.encode(text, add_special_tokens=False)
        assert converted.decode(ids) == library.decode(ids)


def _llama2c(path: Path, pieces: list[ScoredPiece], vocab_size: int) -> ModelFiles:
    rows = [(piece.text.replace("▁", " ").encode(), piece.score) for piece in pieces]
    table = b"".join(struct.pack("<fi", score, len(text)) + text for text, score in rows)
    (path / "tok.bin").write_bytes(struct.pack("<i", 16) + table)
    (path / "model.bin").write_bytes(struct.pack("<7i", 64, 64, 1, 4, 4, vocab_size, 64))
    return ModelFiles("model.bin", "llama2c", path / "model.bin")


def test_llama2c_table(tmp_path: Path, pieces: list[ScoredPiece]) -> None:
    tokenizer = load_tokenizer(_llama2c(tmp_path, pieces, -len(pieces)))
    ids = tokenizer.encode("hello world é")
    assert [tokenizer.token(id) for id in ids[:3]] == ["<s>", " hello", " world"]
    assert tokenizer.decode(ids) == "hello world é"


def test_llama2c_table_of_another_model(tmp_path: Path, pieces: list[ScoredPiece]) -> None:
    with pytest.raises(LoadError, match=r"needs a tokenizer of 512 tokens.*tok\.bin \(278 tokens\)"):
        load_tokenizer(_llama2c(tmp_path, pieces, 512))


@pytest.mark.parametrize("cut", [6, 10, 4000])
def test_llama2c_table_cut_off(tmp_path: Path, pieces: list[ScoredPiece], cut: int) -> None:
    files = _llama2c(tmp_path, pieces, len(pieces))
    table = tmp_path / "tok.bin"
    table.write_bytes(table.read_bytes()[: min(cut, table.stat().st_size - 1)])
    with pytest.raises(LoadError, match="not a llama2.c tokenizer"):
        load_tokenizer(files)


def _metadata(**table: Any) -> dict[str, object]:
    return {f"tokenizer.ggml.{key}": value for key, value in table.items()}


def _scores(pieces: list[ScoredPiece], **more: Any) -> dict[str, object]:
    table = {
        "model": "llama", "tokens": [piece.text for piece in pieces], "scores": [piece.score for piece in pieces],
        "token_type": [int(piece.kind) for piece in pieces], "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0,
    }  # fmt: skip
    return _metadata(**(table | more))


def test_gguf_scores(pieces: list[ScoredPiece]) -> None:
    tokenizer = from_metadata(_scores(pieces))
    assert [tokenizer.token(id) for id in tokenizer.encode("hello world")] == ["<s>", " hello", " world"]
    assert tokenizer.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def test_gguf_scores_without_prefix_and_bos(pieces: list[ScoredPiece]) -> None:
    tokenizer = from_metadata(_scores(pieces, add_space_prefix=False, add_bos_token=False))
    assert [tokenizer.token(id) for id in tokenizer.encode("hello world")] == ["hello", " world"]
    assert tokenizer.decode(tokenizer.encode(" hello")) == " hello"


def test_gguf_end_of_turn_ends_a_generation(pieces: list[ScoredPiece]) -> None:
    assert from_metadata(_scores(pieces, eot_token_id=300 - 25)).eos_token_ids == (2, 275)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (_metadata(model="bert"), "kind 'bert' .WordPiece"),
        (_metadata(), "kind None"),
        (_metadata(model=7), "tokenizer.ggml.model is a int"),
        (_metadata(model="gpt2", pre="qwen3.5-next", tokens=["a"], merges=[]), "preset 'qwen3.5-next'"),
        (_metadata(model="gpt2", pre="gpt-2", tokens=["a"], merges=["b c"]), "merges do not fit"),
        (_metadata(model="gpt2", pre="gpt-2", tokens=["a"]), "no usable tokenizer.ggml.merges"),
        (_metadata(model="llama", tokens=["a", "b"], scores=[0.0]), "scores has 1 rows, its vocabulary 2"),
        (_metadata(model="llama", tokens=[1, 2], scores=[0.0, 0.0]), "no usable tokenizer.ggml.tokens"),
        (_metadata(model="llama", tokens=["a", "a"], scores=[0.0, 0.0]), "already defined"),
        (_metadata(model="llama", tokens=["<unk>", "<0xZZ>"], scores=[0.0, 0.0], token_type=[2, 6]), "<0xZZ>"),
    ],
)  # fmt: skip
def test_gguf_that_cannot_be_read(metadata: dict[str, object], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        from_metadata(metadata)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "holds no tokenizer"),
        ({"tokenizer.json": "{"}, "tokenizer.json cannot be read"),
        ({"tokenizer.model": b"\x0a\xff\xff"}, "SentencePiece vocabulary cannot be read"),
        ({"vocab.json": "[]", "merges.txt": ""}, "cannot be read"),
        ({"vocab.json": "{}", "merges.txt": "", "config.json": {"model_type": "bart"}}, "kind 'bart'"),
    ],
)
def test_folder_that_cannot_be_read(folder: Folder, contents: dict[str, object], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load_tokenizer(folder(contents))


def test_a_decoder_that_is_not_known_is_named(folder: Folder, byte_level_json: str) -> None:
    written = json.loads(byte_level_json) | {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    with pytest.raises(LoadError, match="WordPiece"):
        load_tokenizer(folder({"tokenizer.json": written}))


def test_display_of_half_a_character(folder: Folder, sentencepiece_model: bytes) -> None:
    tokenizer = load_tokenizer(folder({"tokenizer.model": sentencepiece_model}))
    half = 3 + 0xE4
    assert (tokenizer.token(half), tokenizer.token_bytes(half)) == ("bytes:\\xe4", b"\xe4")
    assert (tokenizer.token(1), tokenizer.token_bytes(1)) == ("<s>", b"<s>")


def test_an_id_beyond_the_vocabulary_has_no_text(folder: Folder, byte_level_json: str) -> None:
    """Models pad their tables; a random model may sample such a row."""
    tokenizer = load_tokenizer(folder({"tokenizer.json": byte_level_json}))
    beyond = tokenizer.vocab_size + 5
    assert tokenizer.decode([beyond]) == tokenizer.token(beyond) == ""


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_lone_surrogate_is_the_clients_mistake(folder: Folder, byte_level_json: str, sentencepiece_model: bytes, name: str) -> None:
    tokenizer = load_tokenizer(folder({name: byte_level_json if name.endswith("json") else sentencepiece_model}))
    with pytest.raises(InvalidRequest, match="lone surrogate at character 1"):
        tokenizer.encode("a\ud800b")
