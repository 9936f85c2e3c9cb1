"""Token ids are those of the libraries and models that a tokenizer comes from. Needs the shared data."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sentencepiece
import tokenizers

from penstock.files import ModelFiles
from penstock.text import TextStream, load_tokenizer

Folder = Callable[[dict[str, object]], ModelFiles]


def _cases(shared_data: Path, name: str) -> Iterator[tuple[str, list[int]]]:
    """llama.cpp's own test vectors: texts between marker lines, a line of token ids for each."""
    file = shared_data / f"tokenizers/ggml_vocab/ggml-vocab-{name}.gguf"
    texts = Path(f"{file}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = Path(f"{file}.out").read_text(encoding="utf-8").split("\n")
    return zip(texts, ([int(id) for id in line.split()] for line in lines), strict=True)


def _texts(shared_data: Path) -> list[str]:
    """Prose, odd characters from every plane, and runs that merge in many ways."""
    prose = (shared_data / "text/tinystories/smallGPT_tiny_stories.txt").read_text(encoding="utf-8")[:100_000]
    rng = random.Random(0)
    odd = [
        "".join(chr(code) for code in (rng.randrange(1, top) for _ in range(rng.randrange(40))) if not 0xD800 <= code < 0xE000)
        for top in (0x80, 0x250, 0x3000, 0x10000, 0x1FA00)
        for _ in range(200)
    ]
    vectors = [text for text, _ in _cases(shared_data, "llama-spm")]
    runs = [char * length for char in " \n-a=" for length in (1, 2, 3, 7, 16, 33, 81)]
    return [*vectors, *odd, *runs, *(prose[start : start + 500] for start in range(0, len(prose), 500))]


@pytest.mark.parametrize("name", ["llama-spm", "phi-3", "gpt-2", "deepseek-coder", "deepseek-llm"])
def test_gguf_vocabularies(shared_data: Path, tmp_path: Path, name: str) -> None:
    file = shared_data / f"tokenizers/ggml_vocab/ggml-vocab-{name}.gguf"
    if not file.exists():
        packed, file = Path(f"{file}.gz"), tmp_path / file.name
        file.write_bytes(gzip.decompress(packed.read_bytes()))
    tokenizer = load_tokenizer(ModelFiles(name, "gguf", file))
    for text, expected in _cases(shared_data, name):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == expected, text
        assert tokenizer.decode(ids) == text


def test_phi3_ends_a_turn(shared_data: Path) -> None:
    file = shared_data / "tokenizers/ggml_vocab/ggml-vocab-phi-3.gguf"
    tokenizer = load_tokenizer(ModelFiles("phi-3", "gguf", file))
    assert [tokenizer.token(id) for id in tokenizer.eos_token_ids] == ["<|endoftext|>", "<|end|>"]


def test_llama2_as_sentencepiece(shared_data: Path, folder: Folder) -> None:
    file = shared_data / "tokenizers/llama2/tokenizer.model"
    tokenizer, theirs = load_tokenizer(folder({"tokenizer.model": file})), sentencepiece.SentencePieceProcessor(model_file=str(file))
    for text in _texts(shared_data):
        ids = theirs.encode(text)
        assert tokenizer.encode(text) == [1, *ids], text
        assert tokenizer.decode(ids) == theirs.decode(ids)


def test_llama2c_table_as_the_model_it_was_made_from(shared_data: Path, tmp_path: Path) -> None:
    """llama2.c keeps scores only, so the vocabulary is rebuilt; it must split as the original does."""
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(shared_data / "tokenizers/llama2/tokenizer.model"))
    (tmp_path / "model.bin").write_bytes(b"".join(n.to_bytes(4, "little") for n in (64, 64, 1, 4, 4, 32000, 64)))
    (tmp_path / "tokenizer.bin").write_bytes((shared_data / "tokenizers/llama2/tokenizer.bin").read_bytes())
    tokenizer = load_tokenizer(ModelFiles("model", "llama2c", tmp_path / "model.bin"))
    for text in _texts(shared_data):
        assert tokenizer.encode(text, add_special_tokens=False) == theirs.encode(text), text


def test_qwen2_from_vocab_and_merges(shared_data: Path, folder: Folder) -> None:
    data = shared_data / "tokenizers/qwen2"
    names = ("vocab.json", "merges.txt", "tokenizer_config.json")
    files = folder({name: data / name for name in names})
    tokenizer = load_tokenizer(files)
    for text, expected in _cases(shared_data, "qwen2"):
        assert tokenizer.encode(text) == expected, text
    theirs = _transformers(files)
    for text in [*_texts(shared_data), "<|im_start|>user\nhi<|im_end|>\n"]:
        ids = theirs(text).input_ids
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert tokenizer.eos_token_ids == (151643, 151645)


def test_gpt2_from_vocab_and_merges(shared_data: Path, folder: Folder) -> None:
    data = shared_data / "tokenizers/gpt2"
    config = {"model_type": "gpt2", "bos_token_id": 50256, "eos_token_id": 50256}
    files = folder(
        {
            "vocab.json": data / "gpt2_vocab.json", "merges.txt": data / "gpt2_merges.txt",
            "config.json": config, "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"},
        }
    )  # fmt: skip
    tokenizer, theirs = load_tokenizer(files), _transformers(files)
    for text in [*_texts(shared_data), "one<|endoftext|>two"]:
        assert tokenizer.encode(text) == theirs(text).input_ids, text
    assert tokenizer.eos_token_ids == (50256,)


def test_mistral_as_tokenizers(shared_data: Path, folder: Folder) -> None:
    data = shared_data / "tokenizers/mistral_hf_json"
    files = {"tokenizer.json": data / "minueza_tokenizer.json", "tokenizer_config.json": data / "minueza_tokenizer_config.json"}
    tokenizer = load_tokenizer(folder(files))
    theirs = tokenizers.Tokenizer.from_file(str(data / "minueza_tokenizer.json"))
    for text in [*_texts(shared_data), "<|im_start|>user\nhi<|im_end|>\n"]:
        ids = theirs.encode(text).ids
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == theirs.decode(ids)
    assert [tokenizer.token(id) for id in tokenizer.eos_token_ids] == ["<|im_end|>"]


@pytest.mark.parametrize("model", ["stories260K/stories260K.bin", "tinystories-656k"])
def test_reference_models_read_their_own_stories(shared_data: Path, model: str) -> None:
    path = shared_data / "weights" / model
    golden = json.loads(((path if path.is_dir() else path.parent) / "golden_greedy.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(ModelFiles(model, "safetensors" if path.is_dir() else "llama2c", path))
    story = tokenizer.decode(golden["ids"])
    assert story.startswith("Once upon a time, there was a little girl named")
    told = golden["text"].removeprefix("<|start_story|>").removesuffix("<|end_story|>").replace("<0x0A>", "\n")
    assert told.strip() == story.strip()
    again = tokenizer.encode(story)
    assert tokenizer.decode(again) == story
    assert again[0] == golden["ids"][0]


def _transformers(files: ModelFiles):  # type: ignore[no-untyped-def]
    import transformers

    return transformers.AutoTokenizer.from_pretrained(files.path)


@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 1_000_000, "<" * 1_000_000], ids=["letters", "spaces", "marks"])
def test_a_huge_prompt_takes_seconds(shared_data: Path, folder: Folder, text: str) -> None:
    """No text makes merging much more than linear: measured half a second for each of these."""
    tokenizer = load_tokenizer(folder({"tokenizer.model": shared_data / "tokenizers/llama2/tokenizer.model"}))
    begin = time.process_time()
    assert tokenizer.encode(text)
    assert time.process_time() - begin < 10


def test_streaming_is_fast(shared_data: Path, folder: Folder) -> None:
    """50,000 tokens a second and stream, with stop strings, on a core that others use too: measured five times that."""
    tokenizer = load_tokenizer(folder({"tokenizer.model": shared_data / "tokenizers/llama2/tokenizer.model"}))
    ids = tokenizer.encode("Once upon a time, there was a little girl. " * 2000)[:20_000]
    stream = TextStream(tokenizer, stop=("\n\nUser:", "###", "<|im_end|>", "little boy"))
    begin = time.process_time()
    for token_id in ids:
        stream.push((token_id,))
    assert len(ids) / (time.process_time() - begin) > 50_000
