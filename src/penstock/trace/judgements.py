"""What guards, cache and router decided, counted: for Prometheus by rule, for the page by what became of the request.

There are at most `MOST_SERIES` combinations of room, rule and action: the settings name the rules and the code the actions, and
what comes after them shares one, called "other".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from penstock.core.types import Judgement
from penstock.trace.series import family

MOST_SERIES = 200
SHADOW = "shadow"  # of a request about which something was decided that changed nothing

_NAME = "penstock:judgements"
_BECAME = {
    ("cache", "hit"): "cached",
    ("guard", "redact"): "redacted",
    ("guard", "refuse"): "refused",
    ("router", "escalated"): "escalated",
    ("router", "kept"): "kept",
}


def became(judgements: Iterable[Judgement]) -> tuple[str, ...]:
    """What became of a request by these: "cached", "kept" (by a cascade's first model), "escalated", "redacted", "refused", `SHADOW`."""
    words: dict[str, None] = {}
    for said in judgements:
        word = _BECAME.get((said.room, said.action))
        if word is not None:
            words[SHADOW if said.shadow else word] = None
    return tuple(words)


class Judgements:
    """Decisions by room, rule, action and whether they were made in shadow."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, bool]] = Counter()

    def count(self, judgements: Iterable[Judgement]) -> None:
        for said in judgements:
            combination = (said.room, said.rule, said.action, said.shadow)
            if combination not in self._counts and len(self._counts) >= MOST_SERIES:
                combination = (said.room, "other", "other", said.shadow)
            self._counts[combination] += 1

    def collect(self) -> Iterator[Metric]:
        """The metric, as Prometheus' registry wants it."""
        samples = [
            Sample(f"{_NAME}_total", {"room": room, "rule": rule, "action": action, "shadow": str(shadow).lower()}, count)
            for (room, rule, action, shadow), count in tuple(self._counts.items())
        ]
        yield family(_NAME, "Decisions of guards, cache and router.", "counter", samples)
