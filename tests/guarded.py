"""Guards over answers that are written beforehand, for tests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from penstock.core.config import GuardSettings, RuleSettings
from penstock.core.types import Delta, Event, Finish, Judgement, Message, Request
from penstock.embed import open_vectors
from penstock.guard import Checked, Guard
from penstock.guard.enforced import Enforced
from penstock.guard.make import make_guard
from penstock.guard.rule import Opinion, Reads, Rule, Span, Text, Unit, Where
from penstock.guard.rules import RuleGuard


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


class Shouting:
    """A rule of one's own: objects to words in capitals. `asked` are the texts that it was given."""

    def __init__(self, *, unit: Unit = "span", where: tuple[Where, ...] = ("input", "tools", "output"), cuts: bool = True) -> None:
        self.reads = Reads(where=where, unit=unit, reach=20, cuts=cuts)
        self.asked: list[Text] = []

    async def judge(self, text: Text) -> Opinion:
        self.asked.append(text)
        found = [match for match in re.finditer(r"\b[A-Z]{4,20}\b", text.text) if match.start() >= text.start]
        if not found:
            return Opinion(score=0.0)
        spans = tuple(Span(match.start(), match.end(), "LOUD") for match in found) if self.reads.cuts else ()
        return Opinion(why="it shouts", score=0.9, spans=spans)


class Broken:
    """A rule that never has an opinion: it raises `error`, or takes for ever."""

    def __init__(self, error: Exception | None = None, unit: Unit = "span") -> None:
        self.reads = Reads(where=("input", "output"), unit=unit, reach=1)
        self._error = error

    async def judge(self, text: Text) -> Opinion:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()
        return Opinion()


def enforcing(*rules: tuple[Rule, RuleSettings], hold_chars: int = 256) -> RuleGuard:
    return RuleGuard([Enforced(rule, settings) for rule, settings in rules], hold_chars)
