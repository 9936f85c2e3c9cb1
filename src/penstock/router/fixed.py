"""The router that takes the client at its word: each model's name leads to its routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.core.errors import ModelNotFound, closest
from penstock.core.types import Decision, Request, Route


class FixedRouter:
    """Routes by the model's name. A model's routes are tried in the order given; none is empty."""

    def __init__(self, routes: Mapping[str, Sequence[Route]]) -> None:
        self._routes = {model: tuple(candidates) for model, candidates in routes.items()}

    async def choose(self, request: Request) -> Decision:
        candidates = self._routes.get(request.model)
        if candidates is None:
            raise self._unknown(request.model)
        return Decision(route=candidates[0], candidates=candidates, why=f"serves {request.model!r}")

    def _unknown(self, model: str) -> ModelNotFound:
        near = closest(model, self._routes)
        served = ", ".join(sorted(self._routes)) or "none"
        hint = f"did you mean {near!r}? Served here: {served}" if near else f"served here: {served}"
        return ModelNotFound(f"the model {model!r} does not exist", hint=hint, param="model")
