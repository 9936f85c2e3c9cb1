"""Answers that should be JSON and are not."""

from __future__ import annotations

import asyncio

import msgspec

from penstock.core.config import RuleSettings
from penstock.core.types import Request
from penstock.guard.rule import Means, Opinion, Reads, Text

ASKED_FOR = ("json_object", "json_schema")


class WellFormed:
    """Objects to an answer that is no valid JSON, where the request's `response_format` asked for it.

    Validity only: whether it fits a schema is not checked. An answer that calls a tool and says nothing passes.
    """

    def __init__(self) -> None:
        self.reads = Reads(where=("output",), parts=("text",), unit="whole", decodes=False, cuts=False)

    def concerns(self, request: Request) -> bool:
        """See `Selective`."""
        wanted = request.response_format
        return wanted is not None and wanted.get("type") in ASKED_FOR

    async def judge(self, text: Text) -> Opinion:
        if not text.text:
            return Opinion()
        return await asyncio.to_thread(_valid, text.text) if len(text.text) > 10_000 else _valid(text.text)


def json_rule(settings: RuleSettings, means: Means) -> WellFormed:
    """The rule `kind = "json"`."""
    return WellFormed()


def _valid(text: str) -> Opinion:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return Opinion(why="the answer is not valid JSON", score=1.0)
    return Opinion(score=0.0)
