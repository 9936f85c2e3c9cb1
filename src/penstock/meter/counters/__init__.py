"""Where the limits of keys are counted: in memory, in SQLite, in Redis. All three count alike; `tests/property` compares them."""

from penstock.meter.counters.account import Claim, Refusal, Seed
from penstock.meter.counters.memory import MemoryCounters
from penstock.meter.counters.protocol import Counters

__all__ = ["Claim", "Counters", "MemoryCounters", "Refusal", "Seed"]
