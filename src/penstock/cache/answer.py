"""An answer as it is stored: what was streamed, piece by piece, and what it took; played back as it came."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.cache.protocol import Found
from penstock.core.types import Delta, EngineUse, Event, Finish, PromptInfo, Route, Timings, Usage, Vectors
from penstock.trace import Tab


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was streamed, and what it took."""

    prompt: PromptInfo | None = None
    deltas: tuple[Delta, ...] = ()
    vectors: Vectors | None = None
    finish: Finish
    route: Route
    usage: Usage
    use: EngineUse | None = None

    @property
    def text(self) -> str:
        """The first choice's."""
        return "".join(delta.text for delta in self.deltas if delta.index == 0)

    def replay(self, why: str) -> Found:
        """The hit that gives it again."""
        begin: tuple[Event, ...] = () if self.prompt is None else (self.prompt,)
        vectors: tuple[Event, ...] = () if self.vectors is None else (self.vectors,)
        events = (*begin, *self.deltas, *vectors, self.finish)
        return Found(state="hit", why=why, events=events, route=self.route, usage=self.usage, use=self.use)


def is_whole(finish: Finish, seen: Sequence[Event]) -> bool:
    """Whether an answer ended by itself or at its limit, was not refused and called no tool."""
    if finish.reason not in ("stop", "length") or finish.failure is not None:
        return False
    return not any(isinstance(event, Delta) and (event.tool_calls or event.finish_reason == "content_filter") for event in seen)


def answer_of(seen: Sequence[Event], finish: Finish, tab: Tab) -> Answer:
    """All that was `seen` of an answer; `finish` is its end and `tab` the attempt that made it."""
    return Answer(
        prompt=next((event for event in seen if isinstance(event, PromptInfo)), None),
        deltas=tuple(event for event in seen if isinstance(event, Delta)),
        vectors=next((event for event in seen if isinstance(event, Vectors)), None),
        finish=replace(finish, timings=Timings(), cost_usd=None),  # those of the replay are its own
        route=tab.route,
        usage=tab.usage or finish.usage,
        use=tab.use,
    )


def written(answer: Answer) -> bytes:
    return msgspec.msgpack.encode(answer)


def read(data: bytes) -> Answer:
    """Raises msgspec.DecodeError for what is no answer."""
    return msgspec.msgpack.decode(data, type=Answer)
