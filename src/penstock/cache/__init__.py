"""Answer again without computing."""

from penstock.cache.layered import AnswerCache
from penstock.cache.make import make_cache
from penstock.cache.protocol import Cache, Clearable, Found, NoCache

__all__ = ["AnswerCache", "Cache", "Clearable", "Found", "NoCache", "make_cache"]
