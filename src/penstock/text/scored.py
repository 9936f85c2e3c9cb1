"""Tokenizers with SentencePiece vocabularies, from the three places where such vocabularies are found."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from penstock.core.errors import LoadError
from penstock.files import ModelFiles
from penstock.text import names
from penstock.text.names import AddedToken
from penstock.text.pieces import Around, Kind, PieceEncoder, ScoredPiece, has_dummy_prefix, piece_bytes, read_pieces, write_model
from penstock.text.tokenizer import Tokenizer, Vocabulary


def from_model(files: ModelFiles) -> Tokenizer:
    """A folder's `tokenizer.model`, with the special tokens of tokenizer_config.json and added_tokens.json."""
    model = (files.path / "tokenizer.model").read_bytes()
    settings = files.json("tokenizer_config.json") or {}
    pieces = read_pieces(model)
    tokens = _matched(pieces) | names.added_tokens(files)
    by_text = {token.content: id for id, token in tokens.items()}
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | names.special_token_names(files)
    bos, eos = by_text.get(special["bos_token"]), by_text.get(special["eos_token"])
    add_bos, add_eos = names.flag(settings, "add_bos_token") is not False, names.flag(settings, "add_eos_token") or False
    vocabulary = Vocabulary(
        pieces=_texts(pieces, tokens),
        special_ids=frozenset(id for id, token in tokens.items() if token.special),
        bos_token_id=bos,
        eos_token_ids=names.end_ids(eos, names.configured_ids(files, "eos_token_id"), by_text.get),
        special_tokens={key: content for key, content in special.items() if content in by_text},
        dummy_prefix=has_dummy_prefix(model),
    )
    around = Around(_ids(bos, add_bos), _ids(eos, add_eos))
    legacy = names.flag(settings, "legacy") is not False
    return Tokenizer(vocabulary, PieceEncoder(model, tokens, around=around, prefix_every_part=legacy))


def from_scores(pieces: Sequence[ScoredPiece], vocabulary: Vocabulary, *, around: Around) -> Tokenizer:
    """A score table. Control tokens and user-defined ones are matched in the text as they are written."""
    model = write_model(pieces, dummy_prefix=vocabulary.dummy_prefix)
    return Tokenizer(vocabulary, PieceEncoder(model, _matched(pieces), around=around, prefix_every_part=True))


def _matched(pieces: Iterable[ScoredPiece]) -> dict[int, AddedToken]:
    """Pieces to be cut out of the text. White space that is a piece of its own is left to the library."""
    return {
        id: AddedToken(piece.text, special=piece.kind is not Kind.USER_DEFINED)
        for id, piece in enumerate(pieces)
        if piece.kind in (Kind.CONTROL, Kind.UNKNOWN) or (piece.kind is Kind.USER_DEFINED and _is_word(piece.text))
    }


def _is_word(text: str) -> bool:
    return bool(text.strip("▁ \t\r\n"))


def _texts(pieces: Sequence[ScoredPiece], tokens: dict[int, AddedToken]) -> tuple[bytes, ...]:
    texts = [piece_bytes(piece) for piece in pieces]
    for token_id, token in tokens.items():
        if token_id > len(texts):
            raise LoadError(f"the added token {token.content!r} has the id {token_id}, the next free one is {len(texts)}", hint=_MIXED)
        texts[token_id : token_id + 1] = [token.content.encode()]
    return tuple(texts)


_MIXED = "tokenizer_config.json and tokenizer.model belong to different models; get both again"


def _ids(token_id: int | None, wanted: bool) -> tuple[int, ...]:
    return (token_id,) if wanted and token_id is not None else ()


_BOS, _EOS = 1, 2


def from_llama2c(files: ModelFiles) -> Tokenizer:
    """The `tok*.bin` beside a llama2.c checkpoint that has as many tokens as the checkpoint's vocabulary."""
    vocab_size = _vocab_size(files.path)
    found = {file: _read_table(file) for file in sorted(files.path.parent.glob("tok*.bin")) if file != files.path}
    pieces = next((pieces for pieces in found.values() if len(pieces) == vocab_size), None)
    if pieces is None:
        sizes = ", ".join(f"{file.name} ({len(pieces)} tokens)" for file, pieces in found.items()) or "none"
        raise LoadError(
            f"{files.path} needs a tokenizer of {vocab_size} tokens beside it; found: {sizes}",
            hint="put the tok*.bin that the model was trained with into the same folder",
        )
    vocabulary = Vocabulary(
        pieces=tuple(map(piece_bytes, pieces)),
        special_ids=frozenset((0, _BOS, _EOS)),
        bos_token_id=_BOS,
        eos_token_ids=(_BOS, _EOS),  # a new story begins where the old one has ended
        special_tokens={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        dummy_prefix=True,
    )
    return from_scores(pieces, vocabulary, around=Around((_BOS,)))


def _vocab_size(checkpoint: Path) -> int:
    """The sixth of the header's int32s; negative where the output layer has weights of its own."""
    with checkpoint.open("rb") as file:
        header = file.read(28)
    if len(header) < 28:
        raise LoadError(f"{checkpoint} has {len(header)} bytes, a llama2.c header has 28", hint="get the file again")
    return int(abs(struct.unpack("<7i", header)[5]))


_NAMES = {0: ("<unk>", Kind.UNKNOWN), _BOS: ("<s>", Kind.CONTROL), _EOS: ("</s>", Kind.CONTROL)}
_FIRST_BYTE = 3


def _read_table(file: Path) -> list[ScoredPiece]:
    """A llama2.c tokenizer: int32 longest token, then for each token float32 score, int32 length and its bytes."""
    data = file.read_bytes()
    pieces: list[ScoredPiece] = []
    position = 4
    while position < len(data):
        try:
            score, length = struct.unpack_from("<fi", data, position)
            text = data[position + 8 : position + 8 + length].decode()
        except (struct.error, UnicodeDecodeError) as error:
            raise LoadError(f"{file} is not a llama2.c tokenizer: {error} at byte {position}", hint="get the file again") from error
        if length < 0 or position + 8 + length > len(data):
            raise LoadError(f"{file} is not a llama2.c tokenizer: a token of {length} bytes at byte {position}", hint="get the file again")
        position += 8 + length
        pieces.append(_row(len(pieces), text, score))
    return pieces


def _row(token_id: int, text: str, score: float) -> ScoredPiece:
    """The file keeps no kinds: the first three tokens are special and the 256 after them are bytes."""
    if token_id in _NAMES:
        name, kind = _NAMES[token_id]
        return ScoredPiece(name, score, kind)
    if _FIRST_BYTE <= token_id < _FIRST_BYTE + 256:
        return ScoredPiece(f"<0x{token_id - _FIRST_BYTE:02X}>", score, Kind.BYTE)
    return ScoredPiece(text.replace(" ", "▁"), score, Kind.NORMAL)
