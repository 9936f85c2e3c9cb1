"""Why a whole request ended, from the ends of its choices."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.core.types import FinishReason

WORST_LAST: tuple[FinishReason, ...] = ("stop", "tool_calls", "length", "content_filter", "abort", "error")


def overall(reasons: Iterable[FinishReason]) -> FinishReason:
    """The worst of them: an answer is cut short if one of its choices was."""
    return max(reasons, key=WORST_LAST.index)
