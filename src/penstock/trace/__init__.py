"""Metrics, logs, spans and what the page shows, all from one stream of events."""

from penstock.trace.events import Accepted, Ended, Observer, Rerouted, Streamed, Trace, TraceEvent
from penstock.trace.progress import Progress
from penstock.trace.tab import Tab

__all__ = ["Accepted", "Ended", "Observer", "Progress", "Rerouted", "Streamed", "Tab", "Trace", "TraceEvent"]
