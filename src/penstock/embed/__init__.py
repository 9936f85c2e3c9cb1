"""Texts to vectors, for whoever compares meanings: the cache, the router, the guards."""

from penstock.embed.vectors import TextVectors, open_vectors

__all__ = ["TextVectors", "open_vectors"]
