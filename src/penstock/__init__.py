"""The whole LLM inference stack in one package.

`from penstock import Engine` loads a model in this process; `penstock serve` serves one over HTTP.
Importing this package costs next to nothing: the engine, and torch with it, is loaded when `Engine` is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.app.notebook import Completion as Completion
    from penstock.app.notebook import Engine as Engine
    from penstock.core.config import EngineSpec as EngineSpec
    from penstock.core.types import Message as Message
    from penstock.core.types import Sampling as Sampling

__version__ = "0.1.0"
__all__ = ["Completion", "Engine", "EngineSpec", "Message", "Sampling", "__version__"]

_HOMES = {
    "Completion": "penstock.app.notebook",
    "Engine": "penstock.app.notebook",
    "EngineSpec": "penstock.core.config",
    "Message": "penstock.core.types",
    "Sampling": "penstock.core.types",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
