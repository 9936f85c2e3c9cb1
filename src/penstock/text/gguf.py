"""Vocabularies inside GGUF files: the `tokenizer.ggml.*` metadata.

`model` is "llama" (a SentencePiece score table) or "gpt2" (byte-level BPE with a named preset); others are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import tokenizers
from msgspec import Struct
from tokenizers import models

from penstock.core.errors import LoadError
from penstock.text import huggingface, names, scored
from penstock.text.pieces import SPACE, Around, Kind, ScoredPiece, piece_bytes
from penstock.text.presets import Preset, preset
from penstock.text.tokenizer import Tokenizer, Vocabulary

_PREFIX = "tokenizer.ggml."
_REFUSED = {"bert": "WordPiece, of encoders", "t5": "Unigram", "rwkv": "RWKV's trie", "none": "no vocabulary at all"}
T = TypeVar("T")


def from_metadata(metadata: Mapping[str, object]) -> Tokenizer:
    """The tokenizer in a GGUF's metadata. Raises LoadError for a kind or preset that is not known, and for a broken table."""
    table = _Table(metadata)
    match table.get("model", str, None):
        case "llama":
            return _from_scores(table)
        case "gpt2":
            return _from_merges(table)
        case kind:
            named = f" ({_REFUSED[kind]})" if kind in _REFUSED else ""
            raise LoadError(
                f"the GGUF vocabulary is of kind {kind!r}{named}, which Penstock does not read",
                hint="known are 'llama' (SentencePiece) and 'gpt2' (byte-level BPE)",
            )


class _Table(Struct, frozen=True):
    """The metadata, with types checked as they are read."""

    metadata: Mapping[str, object]

    def get(self, key: str, kind: type[T], default: T | None) -> T | None:
        value = self.metadata.get(_PREFIX + key)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise LoadError(f"the GGUF's {_PREFIX}{key} is a {type(value).__name__}, not a {kind.__name__}", hint="convert the model again")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.get(key, bool, default))

    def rows(self, key: str, kind: type[T], length: int | None = None) -> list[T]:
        """An array of `kind`, of `length` where that is given. Raises LoadError for anything else."""
        values = self.metadata.get(_PREFIX + key)
        if not isinstance(values, (list, tuple)) or not all(isinstance(value, kind) for value in values):
            raise LoadError(f"the GGUF has no usable {_PREFIX}{key}", hint="convert the model again")
        if length is not None and len(values) != length:
            raise LoadError(f"the GGUF's {_PREFIX}{key} has {len(values)} rows, its vocabulary {length}", hint="convert the model again")
        return list(values)

    def tokens(self) -> list[str]:
        return self.rows("tokens", str)

    def kinds(self, num_tokens: int) -> list[Kind]:
        """What each token is; without the array all are ordinary."""
        if _PREFIX + "token_type" not in self.metadata:
            return [Kind.NORMAL] * num_tokens
        known = {kind.value for kind in Kind}
        return [Kind(kind) if kind in known else Kind.NORMAL for kind in self.rows("token_type", int, num_tokens)]

    def id(self, key: str, num_tokens: int) -> int | None:
        token_id = self.get(f"{key}_token_id", int, None)
        return token_id if token_id is not None and 0 <= token_id < num_tokens else None


def _special_ids(table: _Table, num_tokens: int) -> dict[str, int]:
    """Named tokens: "bos", "eos" and so on."""
    keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "eot": "eot", "eom": "eom"}
    found = {name: table.id(key, num_tokens) for name, key in keys.items()}
    return {name: token_id for name, token_id in found.items() if token_id is not None}


def _named(tokens: list[str], special: Mapping[str, int]) -> dict[str, str]:
    return {f"{name}_token": tokens[special[name]] for name in ("bos", "eos", "unk", "pad") if name in special}


def _ends(special: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(special[name] for name in ("eot", "eom") if name in special)


def _from_scores(table: _Table) -> Tokenizer:
    tokens = table.tokens()
    special = _special_ids(table, len(tokens))
    kinds = table.kinds(len(tokens))
    if "unk" in special:
        kinds[special["unk"]] = Kind.UNKNOWN
    scores = table.rows("scores", float, len(tokens))
    pieces = [
        ScoredPiece(text.replace(" ", SPACE), score, kind) for text, score, kind in zip(tokens, scores, kinds, strict=True)
    ]  # fmt: skip
    chat_ends = {token: id for id, token in enumerate(tokens) if token in names.CHAT_ENDS}
    vocabulary = Vocabulary(
        pieces=tuple(map(piece_bytes, pieces)),
        special_ids=frozenset(_control_ids(kinds)) | frozenset(special.values()) | frozenset(chat_ends.values()),
        bos_token_id=special.get("bos"),
        eos_token_ids=names.end_ids(special.get("eos"), {*_ends(special), *chat_ends.values()}, chat_ends.get),
        special_tokens=_named(tokens, special),
        dummy_prefix=table.flag("add_space_prefix", True),
    )
    return scored.from_scores(pieces, vocabulary, around=_around(table, special, add_bos=True))


def _control_ids(kinds: list[Kind]) -> list[int]:
    return [id for id, kind in enumerate(kinds) if kind in (Kind.CONTROL, Kind.UNKNOWN)]


def _around(table: _Table, special: Mapping[str, int], *, add_bos: bool) -> Around:
    before = (special["bos"],) if "bos" in special and table.flag("add_bos_token", add_bos) else ()
    after = (special["eos"],) if "eos" in special and table.flag("add_eos_token", False) else ()
    return Around(before, after)


def _from_merges(table: _Table) -> Tokenizer:
    tokens = table.tokens()
    special = _special_ids(table, len(tokens))
    chosen = preset(table.get("pre", str, None) or "gpt-2")
    backend = huggingface.byte_level(_bpe(table, tokens, chosen), chosen.patterns)
    backend.add_tokens([_added(token, kind) for token, kind in zip(tokens, table.kinds(len(tokens)), strict=True) if kind in _ADDED])
    backend.add_special_tokens([tokens[token_id] for token_id in special.values()])
    around = _around(table, special, add_bos=chosen.add_bos)
    backend.post_processor = huggingface.surrounded(
        backend, before=tokens[around.before[0]] if around.before else None, after=tokens[around.after[0]] if around.after else None
    )
    return huggingface.build(backend, _named(tokens, special), _ends(special))


_ADDED = (Kind.CONTROL, Kind.UNKNOWN, Kind.USER_DEFINED)


def _added(token: str, kind: Kind) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(token, normalized=False, special=kind is not Kind.USER_DEFINED)


def _bpe(table: _Table, tokens: list[str], chosen: Preset) -> models.BPE:
    vocab = {token: id for id, token in enumerate(tokens)}
    merges = [merge.partition(" ")[::2] for merge in table.rows("merges", str)]
    try:
        return models.BPE(vocab, merges, ignore_merges=chosen.whole_words)
    except Exception as error:  # the library raises bare exceptions
        raise LoadError(f"the GGUF's merges do not fit its tokens: {error}", hint="convert the model again") from error
