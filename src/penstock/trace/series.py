"""Numbers that are cheap to count with and are given to Prometheus when it asks.

`prometheus_client` guards each of its numbers with a lock and looks a bucket up by walking past the others: 1 µs each time,
some dozens of times a request. Here all is counted on one thread, the event loop; others only read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

Labels = Mapping[str, str]


class Distribution:
    """How many observations fell into each bucket, and their sum. A bucket's bound belongs to it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, name: str, labels: Labels) -> Iterator[Sample]:
        """As Prometheus counts them: each bucket with those below it."""
        reached = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            reached += count
            yield Sample(f"{name}_bucket", {**labels, "le": floatToGoString(bound)}, reached)  # type: ignore[no-untyped-call]
        yield Sample(f"{name}_sum", dict(labels), self.total)
        yield Sample(f"{name}_count", dict(labels), reached)


def single(name: str, labels: Labels, number: float) -> Iterator[Sample]:
    """One sample."""
    yield Sample(name, dict(labels), number)


def split(name: str, labels: Labels, label: str, numbers: Mapping[str, float]) -> Iterator[Sample]:
    """One sample for each value of `label`."""
    for key, number in tuple(numbers.items()):  # a snapshot: it may grow meanwhile
        yield Sample(name, {**labels, label: key}, number)


def family(name: str, text: str, kind: str, samples: Iterable[Sample]) -> Metric:
    """A metric with the samples of all its series. A counter's samples are called `name`_total."""
    metric = Metric(name, text, kind)
    metric.samples = list(samples)
    return metric
