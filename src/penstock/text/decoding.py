"""What a token stands for, from the `decoder` of a tokenizer.json: one function from a token's name to its bytes.

All decoders of generating models treat each token alone, but for the one space at the very start of a text. That is what
lets a stream be decoded piece by piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from penstock.core.errors import LoadError

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Decoding(Struct, frozen=True):
    """How tokens are written in a vocabulary. `strip_space`: a text's first space is the encoder's and not part of it."""

    replacements: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False  # "<0xE4>" is a byte
    strip_space: bool = False
    alphabet: Mapping[str, int] | None = None  # the character that stands for each byte

    def piece(self, token: str, *, is_added: bool = False) -> bytes:
        """The UTF-8 bytes of `token`. An added token is written as the text that it matches, never in the byte alphabet."""
        if self.byte_fallback and _BYTE.fullmatch(token):
            return byte_of(token)
        if self.alphabet is not None and not is_added and self.alphabet.keys() >= set(token):
            return bytes([self.alphabet[char] for char in token])
        for old, new in self.replacements:
            token = token.replace(old, new)
        return token.encode()


def byte_of(token: str) -> bytes:
    """The byte that "<0xE4>" stands for. Raises LoadError for anything else."""
    if not _BYTE.fullmatch(token):
        raise LoadError(f"the vocabulary has a byte token {token!r}", hint="byte tokens are written <0x00> to <0xFF>")
    return bytes.fromhex(token[3:5])


def byte_alphabet() -> dict[str, int]:
    """The characters that GPT-2 writes bytes with: printable Latin-1 as it is, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def read_decoding(decoder: dict[str, Any] | None) -> Decoding:
    """Understand the `decoder` object of a tokenizer.json. Raises LoadError, naming it, for one that works otherwise."""
    found: dict[str, Any] = {}
    replacements: list[tuple[str, str]] = []
    for step in _steps(decoder):
        match step:
            case {"type": "ByteLevel"}:
                found["alphabet"] = byte_alphabet()
            case {"type": "ByteFallback"}:
                found["byte_fallback"] = True
            case {"type": "Fuse"}:
                pass  # pieces are always joined
            case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
                replacements.append((old, new))
            case {"type": "Metaspace", "replacement": str(mark)}:
                replacements.append((mark, " "))
                found["strip_space"] = step.get("prepend_scheme", "always") != "never"
            case {"type": "Strip", "content": " ", "start": 1, "stop": 0}:
                found["strip_space"] = True
            case _:
                raise LoadError(f"the tokenizer's decoder has a step that Penstock does not know: {step}", hint=_KNOWN)
    return Decoding(tuple(replacements), **found)


_KNOWN = "known are ByteLevel, ByteFallback, Fuse, Replace of a string, Metaspace and Strip of one leading space"


def _steps(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if decoder is None:
        raise LoadError("the tokenizer has no decoder", hint=_KNOWN)
    if decoder.get("type") != "Sequence":
        yield decoder
        return
    for step in decoder["decoders"]:
        yield from _steps(step)
