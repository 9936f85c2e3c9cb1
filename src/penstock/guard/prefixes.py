"""From a regular expression to one that matches where it could still match, were there more text.

`prefixes("ab+c")` matches "", "a", "ab", "abb" … at the end of a text: every beginning of a match that more text could complete,
lengthen or undo. With it a stream is held back no longer than need be.

A pattern is cut into its syntactic parts, whose meaning RE2 alone knows: with X' for the prefixes of X,
(AB)' = A'|AB', (A|B)' = A'|B', (A{m,n})' = A{0,n-1}A'.
"""

from __future__ import annotations

import re

from msgspec import Struct

MOST_NESTED = 6  # groups within groups: each level repeats what is in it

_FLAGS = re.compile(r"\(\?[imsU-]+\)")
_OPEN = re.compile(r"\((?:\?(?:P?<\w+>|[imsU-]*:))?")
_REPEAT = re.compile(r"(?:\*|\+|\?|\{(\d+)(,?)(\d*)\})\??")
_ATOM = re.compile(
    r"\\(?:[pP](?:\{\^?\w+\}|\w)|x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|[^QEC1-9])"  # an escape
    r"|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]"  # a class
    r"|[^\\()\[|*+?]",  # itself
    re.DOTALL,
)
_EMPTY = ("^", "$", "\\b", "\\B", "\\A", "\\z")


class Unreadable(Exception):
    """A pattern with parts that are not known here; RE2 may well know them."""


class Prefixes(Struct, frozen=True):
    """`pattern` matches every beginning of a match; `longest`: the most characters of a whole match, None: there is no bound."""

    pattern: str
    longest: int | None


class _Part(Struct, frozen=True):
    """`whole` matches what it stands for, `begun` each beginning of it, the empty one included."""

    whole: str
    begun: str
    longest: int | None


def prefixes(pattern: str) -> Prefixes:
    """Raises Unreadable. `pattern` is one that RE2 takes."""
    flags = _FLAGS.match(pattern)
    at = flags.end() if flags else 0
    part, end = _either(pattern, at, 0)
    if end < len(pattern):
        raise Unreadable(f"at {end}")
    return Prefixes(f"{pattern[:at]}(?:{part.begun})", part.longest)


def _either(pattern: str, at: int, depth: int) -> tuple[_Part, int]:
    if depth > MOST_NESTED:
        raise Unreadable(f"more than {MOST_NESTED} groups within each other")
    options: list[_Part] = []
    while True:
        option, at = _sequence(pattern, at, depth)
        options.append(option)
        if at == len(pattern) or pattern[at] != "|":
            break
        at += 1
    return (options[0] if len(options) == 1 else _union(options)), at


def _union(options: list[_Part]) -> _Part:
    lengths = [option.longest for option in options]
    longest = None if None in lengths else max(length for length in lengths if length is not None)
    return _Part("|".join(option.whole for option in options), "|".join(option.begun for option in options), longest)


def _sequence(pattern: str, at: int, depth: int) -> tuple[_Part, int]:
    parts: list[_Part] = []
    while at < len(pattern) and pattern[at] not in "|)":
        part, at = _repeated(pattern, at, depth)
        parts.append(part)
    begun, longest = "", 0
    total: int | None = longest
    for part in reversed(parts):  # A' | A (B' | B (C'))
        begun = f"(?:{part.begun}|{part.whole}(?:{begun}))" if begun else f"(?:{part.begun})"
        total = None if total is None or part.longest is None else total + part.longest
    return _Part("".join(part.whole for part in parts), begun, total), at


def _repeated(pattern: str, at: int, depth: int) -> tuple[_Part, int]:
    start = at
    part, at = _single(pattern, at, depth)
    match = _REPEAT.match(pattern, at)
    if match is None:
        return part, at
    whole, at = pattern[start : match.end()], match.end()
    most = _most(match)
    if most is None:
        return _Part(whole, f"(?:{part.whole})*(?:{part.begun})", 0 if part.longest == 0 else None), at
    if most == 0:
        return _Part(whole, "", 0), at
    before = f"(?:{part.whole}){{0,{most - 1}}}" if most > 1 else ""
    return _Part(whole, f"{before}(?:{part.begun})", None if part.longest is None else part.longest * most), at


def _most(match: re.Match[str]) -> int | None:
    """How often at most; None: any number of times."""
    if match[1] is None:
        return 1 if match[0][0] == "?" else None
    return int(match[3]) if match[3] else (None if match[2] else int(match[1]))


def _single(pattern: str, at: int, depth: int) -> tuple[_Part, int]:
    if pattern[at] == "(":
        opening = _OPEN.match(pattern, at)
        if opening is None or (opening[0] == "(" and pattern.startswith("(?", at)):
            raise Unreadable(f"at {at}")
        inner, end = _either(pattern, opening.end(), depth + 1)
        if end == len(pattern):
            raise Unreadable(f"at {at}")
        flags = opening[0] if opening[0].endswith(":") else "(?:"
        return _Part(f"{flags}{inner.whole})", f"{flags}{inner.begun})", inner.longest), end + 1
    atom = _ATOM.match(pattern, at)
    if atom is None:
        raise Unreadable(f"at {at}")
    return _Part(atom[0], "", 0 if atom[0] in _EMPTY else 1), atom.end()
