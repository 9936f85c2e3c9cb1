"""Texts to vectors, for whoever compares meanings: the cache, the router, the guards."""
