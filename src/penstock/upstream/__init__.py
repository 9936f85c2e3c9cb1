"""Anything that streams answers."""

from penstock.upstream.cascade import Cascade
from penstock.upstream.dispatch import Dispatch
from penstock.upstream.protocol import Counting, Tokenizing, Upstream, embedding_models, routes_by_model
from penstock.upstream.source import Source
from penstock.upstream.vote import Vote

__all__ = [
    "Cascade",
    "Counting",
    "Dispatch",
    "Source",
    "Tokenizing",
    "Upstream",
    "Vote",
    "embedding_models",
    "routes_by_model",
]
