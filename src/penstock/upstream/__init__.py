"""Anything that streams answers."""

from penstock.upstream.protocol import Tokenizing, Upstream, routes_by_model

__all__ = ["Tokenizing", "Upstream", "routes_by_model"]
