"""Why an answer ended, in our words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.core.errors import UpstreamFailed
from penstock.core.types import FinishReason

WORST_LAST: tuple[FinishReason, ...] = ("stop", "tool_calls", "length", "content_filter", "abort", "error")


def reason_of(upstream: str, said: str, known: Mapping[str, FinishReason], default: FinishReason = "stop") -> FinishReason:
    """The reason that the server gave. Raises UpstreamFailed where it gave up on the answer."""
    reason = known.get(said, default)
    if reason in ("abort", "error"):
        raise UpstreamFailed(f"the upstream {upstream!r} gave up on its answer: {said}")
    return reason


def overall(reasons: Iterable[FinishReason]) -> FinishReason:
    """The worst of them: an answer is cut short if one of its choices was."""
    return max(reasons, key=WORST_LAST.index)
