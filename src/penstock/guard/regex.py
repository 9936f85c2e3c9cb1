"""Regular expressions of your own, in RE2's syntax: matched in linear time, whatever the text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError, missing_extra
from penstock.guard.prefixes import Unreadable, prefixes
from penstock.guard.rule import Means, Opinion, Reads, Span, Text

if TYPE_CHECKING:
    import re

LONG = 20_000  # characters that are searched on the event loop: about a millisecond


class Regex:
    """Objects to every match of its patterns.

    A pattern whose matches have a greatest length holds back no more of a stream than what may yet become a match. One without
    (`x+`) may hold back more than `guard.hold_chars`; the rule has failed then.
    """

    def __init__(self, name: str, patterns: list[str]) -> None:
        """Raises ConfigError for a pattern that RE2 does not take, MissingExtra."""
        self._name = name
        self._kind = name.upper()
        self._patterns = [_telling(pattern, name) for pattern in patterns]
        self._any = _compiled(_either(patterns), name)  # most texts have none of them: one search tells
        self._begun, longest = _begun(patterns, name)
        self.reads = Reads(where=("input", "tools", "output"), reach=None if longest is None else longest + 1)

    async def judge(self, text: Text) -> Opinion:
        if len(text.text) > LONG:
            return await asyncio.to_thread(self._search, text)
        return self._search(text)

    def pending(self, text: str, start: int) -> int:
        """See `Foreseeing`."""
        if self._begun is None:
            return start if self.reads.reach is None else max(start, len(text) - self.reads.reach + 1)
        match = self._begun.search(text, start)
        return len(text) if match is None else match.start()

    def _search(self, text: Text) -> Opinion:
        if self._any.search(text.text, text.start) is None:
            return Opinion()
        found = [
            Span(match.start(), match.end(), self._kind)
            for pattern in self._patterns
            for match in pattern.finditer(text.text, text.start)
            if match.end() > match.start()
        ]
        if not found:
            return Opinion()
        return Opinion(why=f"{len(found)} {'match' if len(found) == 1 else 'matches'} of its patterns", score=1.0, spans=tuple(found))


def regex(settings: RuleSettings, means: Means) -> Regex:
    """The rule `kind = "regex"`."""
    if not settings.patterns:
        raise ConfigError(f"the rule {settings.name or settings.kind!r} has no patterns", hint='write patterns = ["…"]')
    return Regex(settings.name or settings.kind, settings.patterns)


def _compiled(pattern: str, name: str) -> re.Pattern[str]:
    try:
        import re2
    except ImportError:
        raise missing_extra("a rule of the kind 'regex'", "guard") from None
    options = re2.Options()
    options.log_errors = False
    try:
        compiled: re.Pattern[str] = re2.compile(pattern, options)
    except re2.error as error:
        raise _bad(pattern, name, error.args[0]) from None
    return compiled


def _telling(pattern: str, name: str) -> re.Pattern[str]:
    """One that is not in every text. Raises as `_compiled` does."""
    compiled = _compiled(pattern, name)
    if compiled.fullmatch("") is not None:
        hint = "write + for *, or what must be there"
        raise ConfigError(f"the rule {name!r} has the pattern {pattern!r}, which matches nothing at all, too", hint=hint)
    return compiled


def _bad(pattern: str, name: str, complaint: bytes | str) -> ConfigError:
    """RE2 quotes the part that it does not understand."""
    words = complaint.decode(errors="replace") if isinstance(complaint, bytes) else str(complaint)
    part = words.rpartition(": ")[2]
    at = pattern.find(part) if part else -1
    where = f" at character {at + 1}" if at >= 0 else ""
    hint = "patterns are RE2's: no look-around, no back references; https://github.com/google/re2/wiki/Syntax"
    return ConfigError(f"the rule {name!r} has the pattern {pattern!r}, which is wrong{where}: {words}", hint=hint)


def _begun(patterns: list[str], name: str) -> tuple[re.Pattern[str] | None, int | None]:
    """What finds the beginning of a match at the end of a text, and the length of the longest match; None where it is not known."""
    try:
        begun = [prefixes(pattern) for pattern in patterns]
        found = _compiled(f"(?:{_either([one.pattern for one in begun])})\\z", name)
    except (Unreadable, ConfigError):  # ConfigError: it grew too large for RE2
        return None, None
    lengths = [one.longest for one in begun]
    return found, None if None in lengths else max(length for length in lengths if length is not None)


def _either(patterns: list[str]) -> str:
    return "|".join(f"(?:{pattern})" for pattern in patterns)
