"""Which dialect's shape an error has, by the path that was asked for: known before anything of the request is read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from penstock.gateway.wire.anthropic_errors import ANTHROPIC
from penstock.gateway.wire.errors import OPENAI, ErrorShape

SHAPES: Mapping[str, ErrorShape] = MappingProxyType({"/v1/messages": ANTHROPIC})  # by the beginning of the path; OpenAI's for all others


def shape_of(path: str) -> ErrorShape:
    """The shape of the longest beginning of `path` that has one of its own."""
    known = [start for start in SHAPES if path == start or path.startswith(f"{start}/")]
    return SHAPES[max(known, key=len)] if known else OPENAI
