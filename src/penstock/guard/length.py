"""Texts that are too long."""

from __future__ import annotations

from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError
from penstock.guard.rule import Means, Opinion, Reads, Span, Text


class Length:
    """Objects to all that comes after the first `max_chars` characters of each text; of an answer, to the whole of it."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self.reads = Reads(where=("input", "tools"), unit="whole", decodes=False)

    async def judge(self, text: Text) -> Opinion:
        length = len(text.text)
        if length <= self._max_chars:
            return Opinion(score=0.0)
        why = f"{length} characters; the most is {self._max_chars}"
        return Opinion(why=why, score=1.0, spans=(Span(self._max_chars, length, "CUT"),))


def length(settings: RuleSettings, means: Means) -> Length:
    """The rule `kind = "length"`."""
    if settings.max_chars is None:
        raise ConfigError(f"the rule {settings.name or settings.kind!r} has no max_chars", hint="write max_chars = 20000, or another bound")
    return Length(settings.max_chars)
