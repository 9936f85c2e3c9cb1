"""SentencePiece vocabularies, encoded by the `sentencepiece` library: `tokenizer.model` files and score tables alike.

A score table (GGUF's "llama" kind, llama2.c) is written as a `tokenizer.model` first, so that all of them run through
the one encoder that the models were trained with. Special tokens are cut out of the text before the library sees it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

import sentencepiece
from msgspec import Struct

from penstock.core.errors import LoadError
from penstock.text.decoding import byte_of
from penstock.text.names import AddedToken

SPACE = "▁"


class Kind(IntEnum):
    """What a piece is, numbered as in sentencepiece_model.proto and as in GGUF's `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ScoredPiece(Struct, frozen=True):
    """A row of a score table. Spaces are written as U+2581."""

    text: str
    score: float
    kind: Kind


class Around(Struct, frozen=True):
    """Ids that `add_special_tokens` puts before and after a text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


class PieceEncoder:
    """Cuts special tokens out and encodes what is between them.

    `prefix_every_part`: each part gets SentencePiece's dummy prefix (the "legacy" behaviour of Llama tokenizers, and
    llama.cpp's); otherwise only one at the very start of the text does.
    """

    def __init__(self, model: bytes, tokens: Mapping[int, AddedToken], *, around: Around, prefix_every_part: bool) -> None:
        self._prefixed = _processor(model)
        self._bare = self._prefixed if prefix_every_part else _processor(model + _NO_DUMMY_PREFIX)
        self._tokens = {token.content: (id, token) for id, token in tokens.items() if token.content}
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})").split if longest_first else _whole
        self._around = around

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids = [id for part in self._parts(self._split(text)) for id in part]
        return [*self._around.before, *ids, *self._around.after] if add_special_tokens else ids

    def _parts(self, texts: list[str]) -> Iterator[list[int]]:
        """`texts` alternates between plain text and a special token, beginning and ending with plain text."""
        for index, text in enumerate(texts):
            if index % 2:
                yield [self._tokens[text][0]]
                continue
            if index > 0 and self._tokens[texts[index - 1]][1].rstrip:
                text = text.lstrip()
            if index + 1 < len(texts) and self._tokens[texts[index + 1]][1].lstrip:
                text = text.rstrip()
            if text:
                yield (self._bare if index else self._prefixed).encode(text)


def _whole(text: str) -> list[str]:
    return [text]


def _processor(model: bytes) -> Any:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, TypeError, ValueError) as error:
        raise LoadError(f"the SentencePiece vocabulary cannot be read: {error}", hint="get the model's tokenizer again") from error


def read_pieces(model: bytes) -> list[ScoredPiece]:
    """The rows of a `tokenizer.model`."""
    processor = _processor(model)
    ids = range(processor.get_piece_size())
    return [ScoredPiece(processor.id_to_piece(id), processor.get_score(id), _kind(processor, id)) for id in ids]


def _kind(processor: Any, token_id: int) -> Kind:
    if processor.is_byte(token_id):
        return Kind.BYTE
    if processor.is_control(token_id):
        return Kind.CONTROL
    return Kind.UNKNOWN if processor.is_unknown(token_id) else Kind.NORMAL


def has_dummy_prefix(model: bytes) -> bool:
    """Whether encoding puts a space before the text."""
    return bool(_processor(model).normalize("a").startswith(SPACE))


def piece_bytes(piece: ScoredPiece) -> bytes:
    """The text that a piece stands for."""
    if piece.kind is Kind.BYTE:
        return byte_of(piece.text)
    return piece.text.replace(SPACE, " ").encode()


# A `tokenizer.model` is a protobuf message (sentencepiece_model.proto). Writing one takes three field types.
_VARINT, _LENGTH, _FLOAT = 0, 2, 5
_BPE = 2


def write_model(pieces: Sequence[ScoredPiece], *, dummy_prefix: bool) -> bytes:
    """A `tokenizer.model` of kind BPE that merges by the score of the merged piece and changes nothing in the text."""
    unknown = next((id for id, piece in enumerate(pieces) if piece.kind is Kind.UNKNOWN), 0)
    rows = b"".join(_field(1, _piece(piece, is_unknown=id == unknown)) for id, piece in enumerate(pieces))
    has_bytes = any(piece.kind is Kind.BYTE for piece in pieces)
    trainer = _number(3, _BPE) + _number(35, int(has_bytes))
    normalizer = _field(1, b"identity") + _number(3, int(dummy_prefix)) + _number(4, 0) + _number(5, 1)
    return rows + _field(2, trainer) + _field(3, normalizer)


def _piece(piece: ScoredPiece, *, is_unknown: bool) -> bytes:
    """The library wants exactly one piece of kind UNKNOWN; padded tables have several, or none."""
    kind = Kind.UNKNOWN if is_unknown else Kind.CONTROL if piece.kind is Kind.UNKNOWN else piece.kind
    return _field(1, piece.text.encode()) + _key(2, _FLOAT) + struct.pack("<f", piece.score) + _number(3, kind)


def _field(number: int, content: bytes) -> bytes:
    return _key(number, _LENGTH) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(value)


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


# A second occurrence of a message field is merged into the first, so this switches one setting of any model off.
_NO_DUMMY_PREFIX = _field(3, _number(3, 0))
