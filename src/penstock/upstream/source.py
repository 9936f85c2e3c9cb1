"""What the pipeline asks for an answer once its way is decided: `Dispatch`, or something that asks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from penstock.core.types import Decision, Event, Request
from penstock.trace import Progress
from penstock.upstream.most import Most
from penstock.upstream.protocol import Upstream


class Source(Protocol):
    """Owns nothing: whoever made the upstreams closes them."""

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """Everything that may be called, by name."""

    def stream(self, request: Request, decision: Decision, progress: Progress) -> AsyncGenerator[Event, None]:
        """Answer as `decision` says; `progress.decision` and `progress.answering` follow. Closing it early stops everything.

        Raises the last failure when nothing works; once something was sent there is no way back.
        """

    async def most(self, request: Request, decision: Decision) -> Most:
        """The most that answering by the decision's own routes can take. Raises InvalidRequest where nothing bounds it."""
