"""Anything that streams answers."""

from penstock.upstream.dispatch import Dispatch
from penstock.upstream.protocol import Tokenizing, Upstream, routes_by_model

__all__ = ["Dispatch", "Tokenizing", "Upstream", "routes_by_model"]
