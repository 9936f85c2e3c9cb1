"""From the settings to the answer cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.cache.layered import AnswerCache
from penstock.cache.protocol import Cache, NoCache
from penstock.cache.store import Store, open_store
from penstock.core.config import CacheSettings

if TYPE_CHECKING:
    from penstock.cache.semantic import SemanticTier
    from penstock.embed import TextVectors


def make_cache(settings: CacheSettings, data_dir: Path, vectors: Callable[[], TextVectors]) -> Cache:
    """The cache that the settings ask for. `vectors` is called only where the semantic tier is on or in shadow.

    Raises ConfigError, MissingExtra.
    """
    if settings.exact == "off" and settings.semantic == "off":
        return NoCache()
    store = open_store(settings, data_dir)
    semantic = None if settings.semantic == "off" else semantic_tier(settings, store, vectors())
    return AnswerCache(settings, store, semantic, time.time)


def semantic_tier(settings: CacheSettings, store: Store, vectors: TextVectors) -> SemanticTier:
    """The semantic tier over a store; what it needs of files is read at the first lookup."""
    from penstock.cache.index import VectorIndex
    from penstock.cache.semantic import SemanticTier
    from penstock.cache.verdict import open_verifier

    index = VectorIndex(store.rows, vectors.dimensions, settings.max_entries)
    return SemanticTier(store, index, vectors, partial(open_verifier, vectors.name, settings.delta), policy=settings.policy)
