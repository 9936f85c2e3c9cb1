"""Metrics and logs, both from one stream of events."""

from penstock.trace.events import Accepted, Ended, Observer, Rerouted, Streamed, Trace, TraceEvent
from penstock.trace.progress import Progress

__all__ = ["Accepted", "Ended", "Observer", "Progress", "Rerouted", "Streamed", "Trace", "TraceEvent"]
