"""Choose a route and say why."""

from penstock.router.fixed import FixedRouter
from penstock.router.protocol import Router

__all__ = ["FixedRouter", "Router"]
