"""Answer again without computing."""

from penstock.cache.protocol import Cache, Found, NoCache

__all__ = ["Cache", "Found", "NoCache"]
