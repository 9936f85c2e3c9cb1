"""Where answers are kept: in memory, in a SQLite file, in Redis."""

from penstock.cache.store.make import open_store
from penstock.cache.store.protocol import Bounds, Entry, Held, Part, Seen, Store

__all__ = ["Bounds", "Entry", "Held", "Part", "Seen", "Store", "open_store"]
