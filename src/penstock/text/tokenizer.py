"""A tokenizer: an encoder of whatever library fits the vocabulary, and decoding that is the same for all of them.

Decoding joins the bytes of the tokens and reads them as UTF-8; bytes that are not valid become U+FFFD. Because whole text and
pieces go through the same `Detokenizer`, the pieces of a stream always join to what `decode` gives for all its tokens.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from penstock.core.errors import InvalidRequest

_MAX_UTF8_BYTES = 4


class Vocabulary(Struct, frozen=True, kw_only=True):
    """What each token id stands for. `pieces[id]` is its text as UTF-8 bytes, of which a token may hold half a character."""

    pieces: tuple[bytes, ...]
    special_ids: frozenset[int]  # control tokens: not part of the text unless asked for
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()  # any of them ends a generation
    special_tokens: dict[str, str] = {}  # "bos_token": "<s>" and the like, as chat templates name them
    dummy_prefix: bool = False  # encoding puts a space before the text, so decoding takes one away


class Encoder(Protocol):
    """Text to token ids."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class Detokenizer:
    """Turns tokens into text as they come. Emits whole characters only: an unfinished one waits for its last byte."""

    def __init__(self, pieces: Sequence[bytes], *, strip_space: bool, prompt_tail: Sequence[int] = ()) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip_space = strip_space and not any(map(self._piece, reversed(prompt_tail)))
        self._decoder.decode(b"".join(map(self._piece, prompt_tail[-_MAX_UTF8_BYTES:])))

    def push(self, token_ids: Iterable[int]) -> str:
        """The text that these tokens complete."""
        return self._start(self._decoder.decode(b"".join(map(self._piece, token_ids))))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never got its last byte, otherwise nothing."""
        return self._start(self._decoder.decode(b"", final=True))

    def _piece(self, token_id: int) -> bytes:
        """Models may have more rows than their tokenizer has tokens; such a row has no text."""
        return self._pieces[token_id] if token_id < len(self._pieces) else b""

    def _start(self, text: str) -> str:
        if not self._strip_space or not text:
            return text
        self._strip_space = False
        return text.removeprefix(" ")


class Tokenizer:
    """Text to tokens and back. `vocab_size` counts the tokenizer's ids; the model's own table may be larger."""

    def __init__(self, vocabulary: Vocabulary, encoder: Encoder) -> None:
        self.vocab_size = len(vocabulary.pieces)
        self.bos_token_id = vocabulary.bos_token_id
        self.eos_token_ids = vocabulary.eos_token_ids
        self.special_ids = vocabulary.special_ids
        self.special_tokens: Mapping[str, str] = vocabulary.special_tokens
        self.max_token_bytes = max([1, *map(len, vocabulary.pieces)])
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._plain_pieces = tuple(b"" if id in vocabulary.special_ids else piece for id, piece in enumerate(vocabulary.pieces))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`. Special tokens written out in it ("<|im_end|>") become that token.

        `add_special_tokens` puts those around it that the model was trained with (BOS, say). Raises InvalidRequest for text
        that is not Unicode (a lone surrogate).
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"the text holds a lone surrogate at character {error.start}", hint="send valid Unicode") from error
        return self._encoder.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `token_ids`, from the start of a text."""
        detokenizer = self.detokenizer(skip_special_tokens=skip_special_tokens)
        return detokenizer.push(token_ids) + detokenizer.flush()

    def detokenizer(self, *, skip_special_tokens: bool = True, prompt_tail: Sequence[int] = ()) -> Detokenizer:
        """Decode a stream that continues `prompt_tail`: tokens that came before, of which nothing is emitted again.

        With no text before it, a SentencePiece vocabulary's first word loses the space that marks the start of a word.
        """
        pieces = self._plain_pieces if skip_special_tokens else self._vocabulary.pieces
        return Detokenizer(pieces, strip_space=self._vocabulary.dummy_prefix, prompt_tail=prompt_tail)

    def token(self, token_id: int) -> str:
        """One token for display: its text, or "bytes:\\xe4\\xbd" where it is not whole characters (OpenAI's way)."""
        piece = self.token_bytes(token_id)
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)

    def token_bytes(self, token_id: int) -> bytes:
        """One token's UTF-8 bytes, special tokens included; empty for an id beyond the vocabulary."""
        return self._vocabulary.pieces[token_id] if token_id < self.vocab_size else b""
