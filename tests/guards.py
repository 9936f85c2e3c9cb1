"""Guards over answers that are written beforehand, for tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from penstock.core.config import GuardSettings, RuleSettings
from penstock.core.types import Delta, Event, Finish, Judgement, Message, Request
from penstock.embed import open_vectors
from penstock.guard import Checked, Guard, make_guard


def chat(*contents: str, **fields: object) -> Request:
    """A chat whose user says `contents`, one turn each."""
    return Request(id="r", model="m", messages=tuple(Message(role="user", content=content) for content in contents), **fields)


def guard_of(*rules: RuleSettings, hold_chars: int = 256, mode: str = "on") -> Guard:
    return make_guard(GuardSettings(rules=list(rules), hold_chars=hold_chars, mode=mode), lambda: open_vectors("static"))


async def spoken(pieces: Iterable[Delta], finish: Finish | None = None) -> AsyncGenerator[Event, None]:
    for piece in pieces:
        yield piece
    yield finish or Finish(reason="stop")


async def heard(guard: Guard, pieces: Sequence[Delta], checked: Checked | None = None) -> tuple[list[Event], list[Judgement]]:
    """All that a client gets of an answer of `pieces`, and what was judged."""
    judged: list[Judgement] = []
    watched = guard.watch(checked or Checked(request=chat("Hi")), spoken(pieces), judged.append)
    async with aclosing(watched) as events:
        return [event async for event in events], judged


def texts(events: Iterable[Event], index: int = 0) -> dict[str | int, str]:
    """Each text of a choice put together: "text", "reasoning", and the arguments of calls by their number."""
    found: dict[str | int, str] = {}
    for event in events:
        if isinstance(event, Delta) and event.index == index:
            found["reasoning"] = found.get("reasoning", "") + event.reasoning
            found["text"] = found.get("text", "") + event.text
            for call in event.tool_calls:
                found[call.index] = found.get(call.index, "") + call.arguments
    return found
