"""Byte-level BPE and whatever else `tokenizer.json` describes, encoded by the `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from penstock.core.errors import LoadError
from penstock.files import ModelFiles
from penstock.text import names
from penstock.text.decoding import Decoding, read_decoding
from penstock.text.presets import QWEN2
from penstock.text.tokenizer import Tokenizer, Vocabulary

_MAX_TOKEN_ID = 1 << 22  # a table this long is a mistake or an attack


class BackendEncoder:
    """Encodes with a `tokenizers` pipeline."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


def from_json(files: ModelFiles) -> Tokenizer:
    """A folder's tokenizer.json, with what tokenizer_config.json adds to it."""
    return _from_folder(files, _read(files.path / "tokenizer.json"))


def from_merges(files: ModelFiles) -> Tokenizer:
    """A folder's vocab.json and merges.txt: byte-level BPE as of GPT-2 or of Qwen2."""
    try:
        model = models.BPE.from_file(str(files.path / "vocab.json"), str(files.path / "merges.txt"))
    except Exception as error:  # the library raises bare exceptions
        raise LoadError(f"{files.path} holds a vocab.json and merges.txt that cannot be read: {error}", hint="get them again") from error
    backend = byte_level(model, _patterns(files))
    if _family(files) == "qwen2":
        backend.normalizer = normalizers.NFC()
    return _from_folder(files, backend)


def byte_level(model: models.BPE, patterns: tuple[str, ...]) -> tokenizers.Tokenizer:
    """A byte-level BPE pipeline that splits text by each of `patterns` in turn before it merges."""
    backend = tokenizers.Tokenizer(model)
    splits = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in patterns]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not patterns)])
    backend.decoder = tokenizers.decoders.ByteLevel()
    return backend


def _patterns(files: ModelFiles) -> tuple[str, ...]:
    return (QWEN2,) if _family(files) == "qwen2" else ()


def _family(files: ModelFiles) -> str:
    """How text is split, as "gpt2" or as "qwen2" does; that is written nowhere and follows from the kind of model."""
    written = (files.json("tokenizer_config.json") or {}).get("tokenizer_class") or (files.json("config.json") or {}).get("model_type")
    kind = str(written).lower()
    for family in ("gpt2", "qwen2", "qwen3"):
        if kind.startswith(family):
            return "gpt2" if family == "gpt2" else "qwen2"
    raise LoadError(
        f"{files.name} has vocab.json and merges.txt and a tokenizer of kind {written!r}; known are GPT2Tokenizer and Qwen2Tokenizer",
        hint="save its tokenizer.json with transformers: AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)",
    )


def _read(file: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare exceptions
        raise LoadError(f"{file} cannot be read: {error}", hint="get the file again, or update the tokenizers package") from error


def _from_folder(files: ModelFiles, backend: tokenizers.Tokenizer) -> Tokenizer:
    settings = files.json("tokenizer_config.json") or {}
    special = names.special_token_names(files) or _by_id(files, backend)
    _add_missing(backend, names.added_tokens(files))
    absent = [content for content in special.values() if not _is_added(backend, content)]
    backend.add_special_tokens(absent)
    bos = special.get("bos_token")
    eos = special.get("eos_token")
    add_bos, add_eos = names.flag(settings, "add_bos_token"), names.flag(settings, "add_eos_token")
    if add_bos is not None or add_eos is not None:
        backend.post_processor = surrounded(backend, before=bos if add_bos else None, after=eos if add_eos else None)
    return build(backend, special, names.configured_ids(files, "eos_token_id"))


def _by_id(files: ModelFiles, backend: tokenizers.Tokenizer) -> dict[str, str]:
    """Where no file names the special tokens, the model's config may give their ids."""
    named = {}
    for key in ("bos_token", "eos_token", "pad_token"):
        for token_id in names.configured_ids(files, f"{key}_id")[:1]:
            content = backend.id_to_token(token_id)
            if content is not None:
                named[key] = content
    return named


def _is_added(backend: tokenizers.Tokenizer, content: str) -> bool:
    return any(token.content == content for token in backend.get_added_tokens_decoder().values())


def _add_missing(backend: tokenizers.Tokenizer, tokens: Mapping[int, names.AddedToken]) -> None:
    """Add what tokenizer_config.json lists and the vocabulary file does not; the library numbers them in order."""
    known = backend.get_added_tokens_decoder()
    for token_id, token in tokens.items():
        if token_id in known:
            continue
        backend.add_tokens([_backend_token(token)])
        if backend.token_to_id(token.content) != token_id:
            raise LoadError(
                f"the added token {token.content!r} should have the id {token_id}, its place is {backend.token_to_id(token.content)}",
                hint="tokenizer_config.json and the vocabulary belong to different models; get both again",
            )


def _backend_token(token: names.AddedToken) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        token.content, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip,
        normalized=token.normalized, special=token.special,
    )  # fmt: skip


def surrounded(backend: tokenizers.Tokenizer, *, before: str | None, after: str | None) -> processors.TemplateProcessing:
    """Puts `before` and `after` around each text that is encoded with special tokens."""
    around = [(content, backend.token_to_id(content)) for content in dict.fromkeys((before, after)) if content is not None]
    return processors.TemplateProcessing(single=[token for token in (before, "$A", after) if token], special_tokens=around)


def build(backend: tokenizers.Tokenizer, special: dict[str, str], configured_ends: tuple[int, ...]) -> Tokenizer:
    """Read the finished pipeline's vocabulary."""
    added = backend.get_added_tokens_decoder()
    special_ids = {id for id, token in added.items() if token.special} | set(_ids(backend, special))
    chat_ends = {token.content: id for id, token in added.items()}
    eos = backend.token_to_id(special["eos_token"]) if "eos_token" in special else None
    bos = backend.token_to_id(special["bos_token"]) if "bos_token" in special else None
    decoding = read_decoding(json.loads(backend.decoder.__getstate__()) if backend.decoder else None)
    vocabulary = Vocabulary(
        pieces=_pieces(backend.get_vocab(with_added_tokens=True), added.keys(), decoding),
        special_ids=frozenset(special_ids),
        bos_token_id=bos,
        eos_token_ids=names.end_ids(eos, configured_ends, chat_ends.get),
        special_tokens=special,
        dummy_prefix=decoding.strip_space,
    )
    return Tokenizer(vocabulary, BackendEncoder(backend))


def _ids(backend: tokenizers.Tokenizer, special: Mapping[str, str]) -> Iterator[int]:
    for content in special.values():
        token_id = backend.token_to_id(content)
        if token_id is not None:
            yield token_id


def _pieces(vocab: Mapping[str, int], added: Collection[int], decoding: Decoding) -> tuple[bytes, ...]:
    last = max(vocab.values(), default=-1)
    if last > _MAX_TOKEN_ID:
        raise LoadError(f"the tokenizer has a token with the id {last}; the limit is {_MAX_TOKEN_ID}", hint="get tokenizer.json again")
    pieces = [b""] * (last + 1)
    for token, token_id in vocab.items():
        pieces[token_id] = decoding.piece(token, is_added=token_id in added)
    return tuple(pieces)
