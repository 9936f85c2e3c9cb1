"""Model folders with tokenizers of each family, small enough to be made on the spot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from penstock.files import ModelFiles
from penstock.text.pieces import Kind, ScoredPiece, write_model

Folder = Callable[..., ModelFiles]
TEXT = ["the quick brown fox jumps over the lazy dog", "hello world, hello there", "größer — schön", "你好，世界"] * 3


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Makes a model folder: names to file contents, a path to be copied, or an object to be written as JSON."""

    def make(contents: Mapping[str, object]) -> ModelFiles:
        for name, content in contents.items():
            if isinstance(content, Path):
                shutil.copy(content, tmp_path / name)
            elif isinstance(content, bytes):
                (tmp_path / name).write_bytes(content)
            else:
                (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return ModelFiles(str(tmp_path), "safetensors", tmp_path)

    return make


@pytest.fixture(scope="session")
def byte_level_json() -> str:
    """A byte-level BPE with the special tokens <s>, </s> and <|im_end|>, which are the ids 0 to 2."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        special_tokens=["<s>", "</s>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(TEXT, trainer)
    return str(backend.to_str())


@pytest.fixture(scope="session")
def pieces() -> list[ScoredPiece]:
    """A SentencePiece vocabulary with bytes: <unk>, <s>, </s>, 256 bytes, then words by rank."""
    special = [ScoredPiece("<unk>", 0.0, Kind.UNKNOWN), ScoredPiece("<s>", 0.0, Kind.CONTROL), ScoredPiece("</s>", 0.0, Kind.CONTROL)]
    byte_pieces = [ScoredPiece(f"<0x{byte:02X}>", 0.0, Kind.BYTE) for byte in range(256)]
    words = ["▁", "h", "e", "l", "o", "w", "r", "d", "ll", "he", "▁w", "or", "llo", "hello", "▁hello", "▁wor", "ld", "▁world", "你"]
    return special + byte_pieces + [ScoredPiece(word, -float(rank), Kind.NORMAL) for rank, word in enumerate(words)]


@pytest.fixture(scope="session")
def sentencepiece_model(pieces: list[ScoredPiece]) -> bytes:
    return write_model(pieces, dummy_prefix=True)


@pytest.fixture(scope="session")
def llama_json(pieces: list[ScoredPiece]) -> str:
    """The same vocabulary as transformers writes Llama's: a tokenizer.json with byte fallback and a decoder of four steps."""
    vocab = {piece.text: token_id for token_id, piece in enumerate(pieces)}
    words = [piece.text for piece in pieces if piece.kind is Kind.NORMAL]
    merges = [(word[:cut], word[cut:]) for word in words for cut in range(1, len(word)) if {word[:cut], word[cut:]} <= set(words)]
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return str(backend.to_str())
