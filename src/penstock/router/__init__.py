"""Choose a route and say why."""

from penstock.router.fixed import FixedRouter
from penstock.router.make import make_router
from penstock.router.protocol import Costs, NoCosts, Router

__all__ = ["Costs", "FixedRouter", "NoCosts", "Router", "make_router"]
