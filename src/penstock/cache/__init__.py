"""Answer again without computing."""

from penstock.cache.protocol import Cache, NoCache

__all__ = ["Cache", "NoCache"]
