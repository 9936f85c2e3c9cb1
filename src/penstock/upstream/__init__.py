"""Anything that streams answers."""

from penstock.upstream.dispatch import Dispatch
from penstock.upstream.protocol import Counting, Tokenizing, Upstream, embedding_models, routes_by_model

__all__ = ["Counting", "Dispatch", "Tokenizing", "Upstream", "embedding_models", "routes_by_model"]
