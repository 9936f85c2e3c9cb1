"""What a text may hide: other readings of it, for judging only.

A stage undoes one disguise and leaves all else as it is; each stage reads what the one before made of the text, so that what was
hidden twice is found. Sizes and depth are bounded: whatever does not fit is judged as it was written.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import unquote_to_bytes

from penstock.guard.confusables import LOOKALIKES
from penstock.guard.views import Change, View, read, replaced

MAX_CHARS = 200_000  # of a text that is decoded
DEPTH = 3  # disguises within disguises

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_WORD = re.compile(r"[^\W\d_]+")
_BASE64 = re.compile(r"(?<![\w+/=-])(?:[A-Za-z0-9+/_-]{4}\s?){4,}(?:[A-Za-z0-9+/_-]{2,3}={0,2})?(?![\w+/=-])")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:0x)?(?:(?:\\x)?[0-9A-Fa-f]{2}[ :,]?){8,}(?![0-9A-Za-z])")
_ESCAPES = re.compile(
    r"(?:%[0-9A-Fa-f]{2})+|&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});|(?:\\u[0-9A-Fa-f]{4})+|(?:\\x[0-9A-Fa-f]{2})+"
)
_SPACED = re.compile(r"(?<!\w)[^\W\d_](?:([ .\-_*|])[^\W\d_])(?:\1[^\W\d_])+(?!\w)")
_LEET_WORD = re.compile(r"(?<![\w@$!])(?=[\w@$!]*[A-Za-z])(?=[\w@$!]*[013457@$!])[A-Za-z013457@$!]{3,}(?![\w@$!])")
_LEET = str.maketrans("013457@$!", "oieastasi")
_TELLING = (
    *("the", "and", "you", "all", "are", "this", "that", "with", "from", "your", "for", "not", "have", "will", "what"),
    *("ignore", "instructions", "previous", "system", "prompt", "reveal", "password"),
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def readings(text: str) -> list[View]:
    """What `text` may also say, the plainest first; nothing where it hides nothing."""
    if len(text) > MAX_CHARS:
        return []
    found: list[View] = []
    below: View | None = None
    for _ in range(DEPTH):
        before = below
        for stage in (unmasked, _unescaped, _unpacked, _joined):
            seen = stage(below.text if below else text, below)
            below = seen or below
        if below is before:
            break
    if below is not None:
        found.append(below)
    others = (other(below.text if below else text, below) for other in (_unshifted, _unleeted))
    return [*found, *(seen for seen in others if seen is not None)]


def unmasked(text: str, below: View | None = None) -> View | None:
    """Without what cannot be seen, look-alikes as the letters that they look like.

    Words of another script stay what they are. Source: Unicode Technical Standard 39 (confusables), NFKC.
    """
    if text.isascii():
        return None
    spoofed = _spoofed(text)
    changes = replaced(_NOT_ASCII, text, lambda match: _plain(match[0], lookalikes=match.start() in spoofed))
    return read(text, changes, "unicode", below) if changes else None


def streamed(text: str, *, is_json: bool) -> View | None:
    """A reading that grows as the text grows: whatever follows changes nothing of it.

    Each character is read by itself. `is_json`: escapes of a JSON string are read, too, up to one that is not whole.
    """
    view: View | None = None
    if is_json and "\\" in text:
        text = text[: cut_escape(text)]
        view = read(text, replaced(_JSON_ESCAPE, text, _json_character), "json")
    plain = view.text if view else text
    if not plain.isascii():
        changes = replaced(_NOT_ASCII, plain, lambda match: _plain(match[0], lookalikes=True))
        view = read(plain, changes, "unicode", view) if changes else view
    return view


def cut_escape(text: str) -> int:
    """Where a JSON escape begins that `text` breaks off; `len(text)`: nowhere."""
    match = _CUT_ESCAPE.search(text)
    return len(text) if match is None else match.start()


_JSON_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[^u]")
_CUT_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)\Z")
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def _json_character(match: re.Match[str]) -> str:
    escape = match[0]
    if escape[1] != "u":
        return _SHORT.get(escape[1], escape[1])
    units = b"".join(int(unit, 16).to_bytes(2, "little") for unit in escape.split("\\u")[1:])
    return units.decode("utf-16-le", errors="replace")


def _plain(character: str, *, lookalikes: bool) -> str:
    code = ord(character)
    if 0xE0020 <= code <= 0xE007E:  # tags: ASCII that nobody sees
        return chr(code - 0xE0000)
    if unicodedata.category(character) == "Cf" or 0x300 <= code <= 0x36F or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return ""
    if lookalikes and character in LOOKALIKES:
        return LOOKALIKES[character]
    return unicodedata.normalize("NFKC", character)


def _spoofed(text: str) -> set[int]:
    """Where letters stand that only look like Latin ones, in words of nothing else than such and Latin ones.

    Words of look-alikes alone are what they are where the text has more words of their script.
    """
    places: set[int] = set()
    doubtful: list[re.Match[str]] = []
    foreign = 0
    for word in _WORD.finditer(text):
        if word[0].isascii():
            continue
        if not all(letter.isascii() or letter in LOOKALIKES for letter in word[0]):
            foreign += not any(letter.isascii() for letter in word[0])
        elif any(letter.isascii() for letter in word[0]):
            places.update(range(word.start(), word.end()))
        else:
            doubtful.append(word)
    for word in doubtful if len(doubtful) > foreign else ():
        places.update(range(word.start(), word.end()))
    return places


def _unescaped(text: str, below: View | None) -> View | None:
    changes = replaced(_ESCAPES, text, lambda match: _unescape(match[0]))
    return read(text, changes, "escapes", below) if changes else None


def _unescape(escape: str) -> str | None:
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[0] == "%":
        return _as_text(unquote_to_bytes(escape))
    if escape[1] == "x":
        return _as_text(bytes.fromhex(escape.replace("\\x", "")))
    return b"".join(int(unit, 16).to_bytes(2, "little") for unit in escape.split("\\u")[1:]).decode("utf-16-le", errors="replace")


def _unpacked(text: str, below: View | None) -> View | None:
    for name, pattern, unpack in (("hex", _HEX, _from_hex), ("base64", _BASE64, _from_base64)):
        if changes := replaced(pattern, text, unpack):
            return read(text, changes, name, below)
    return None


def _from_hex(match: re.Match[str]) -> str | None:
    digits = re.sub(r"0x|\\x|[ :,]", "", match[0])
    return _as_prose(bytes.fromhex(digits)) if len(digits) % 2 == 0 else None


def _from_base64(match: re.Match[str]) -> str | None:
    packed = re.sub(r"\s|=", "", match[0]).translate(str.maketrans("-_", "+/"))
    try:
        return _as_prose(base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True))
    except (binascii.Error, ValueError):
        return None


def _as_text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _as_prose(raw: bytes) -> str | None:
    """The text of bytes that are one: printable, most of it letters, digits and spaces."""
    text = _as_text(raw)
    if text is None or len(text) < 6:
        return None
    common = sum(character.isalnum() or character.isspace() for character in text)
    return text if common >= 0.7 * len(text) and all(c.isprintable() or c.isspace() for c in text) else None


def _joined(text: str, below: View | None) -> View | None:
    """Words whose letters stand apart: "i g n o r e", where one of them has more than three."""
    changes = replaced(_SPACED, text, lambda match: match[0].replace(match[1], ""))
    return read(text, changes, "spacing", below) if any(len(change.text) > 3 for change in changes) else None


def _unshifted(text: str, below: View | None) -> View | None:
    """Letters moved along the alphabet (Caesar, rot13), or the whole written backwards, where telling English words say so."""
    words = [word.lower() for word in _WORD.findall(text)]
    hits = Counter(shift for word in words for shift in _SHIFTS.get(word, ()))
    if not hits:
        return None
    shift, count = hits.most_common(1)[0]
    distinct = {word for word in words if shift in _SHIFTS.get(word, ())}
    if len(distinct) < 2 or count <= sum(word in _TELLING for word in words) // 4:
        return None
    if shift == 0:
        return read(text, [Change(0, len(text), text[::-1])], "backwards", below)
    return read(text, [Change(0, len(text), text.translate(_table(shift)))], f"rot{shift}" if shift == 13 else "caesar", below)


def _unleeted(text: str, below: View | None) -> View | None:
    """Digits for letters: "1gn0r3", where more than two words have them."""
    changes = replaced(_LEET_WORD, text, lambda match: match[0].translate(_LEET))
    return read(text, changes, "leetspeak", below) if len(changes) > 2 else None


def _table(shift: int) -> dict[int, int]:
    """Moves each letter back by `shift`."""
    moved = _LETTERS[-shift:] + _LETTERS[:-shift]
    return str.maketrans(_LETTERS + _LETTERS.upper(), moved + moved.upper())


def _shifted() -> Iterator[tuple[str, int]]:
    """Each telling word as each shift writes it; 0: backwards."""
    for word in _TELLING:
        yield word[::-1], 0
        for shift in range(1, 26):
            yield word.translate(_table(26 - shift)), shift


def _index(pairs: Callable[[], Iterator[tuple[str, int]]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for word, shift in pairs():
        if word not in _TELLING:
            found[word] = (*found.get(word, ()), shift)
    return found


_SHIFTS = _index(_shifted)
