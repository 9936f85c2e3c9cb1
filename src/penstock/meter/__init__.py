"""From usage to money. For now: the count of what was used."""

from penstock.meter.ledger import Ledger, MemoryLedger

__all__ = ["Ledger", "MemoryLedger"]
