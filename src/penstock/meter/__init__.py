"""From usage to money: limits, prices, and the ledger of what was used."""

from penstock.meter.admission import Admission, Hold, Unlimited
from penstock.meter.ledger import Ledger, MemoryLedger
from penstock.meter.pricing import NoPrices, Pricing

__all__ = ["Admission", "Hold", "Ledger", "MemoryLedger", "NoPrices", "Pricing", "Unlimited"]
