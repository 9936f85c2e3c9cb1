"""One answer for all who ask the very same at the same time.

The first to ask leads and goes on as if it were alone; the others wait for what comes of it. Whatever ends a leader frees them: its
answer is theirs; one that may not be shared sends each its own way; and where it failed, or its client left, the one that has waited
longest leads. A leader never waits for its followers, and nobody waits longer than `FOLLOW_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Literal

from penstock.cache.answer import Answer

FOLLOW_S = 60.0
MOST_WAITING = 4096  # in all; one more goes its own way

Outcome = Answer | Literal["lead", "alone"]


class Flight:
    """What is being answered, by its leader. `answer` is there once it is whole, while it is being stored."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.answer: Answer | None = None
        self.outdated = False  # what it brings was invalidated while it was made
        self.waiting: deque[asyncio.Future[Outcome]] = deque()


class Flights:
    """All of one process. Used from one event loop."""

    def __init__(self, follow_s: float = FOLLOW_S) -> None:
        self._follow_s = follow_s
        self._flights: dict[bytes, Flight] = {}
        self._waiting = 0

    def lead(self, key: bytes) -> Flight | None:
        """The flight to lead; None where there is one."""
        if key in self._flights:
            return None
        flight = self._flights[key] = Flight(key)
        return flight

    async def follow(self, key: bytes) -> Answer | Flight | None:
        """The leader's answer; or the flight, to lead it from now on; or None: go alone."""
        flight = self._flights[key]
        if flight.answer is not None and not flight.outdated:
            return flight.answer
        if flight.outdated or self._waiting >= MOST_WAITING:
            return None
        turn: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        flight.waiting.append(turn)
        self._waiting += 1
        try:
            await asyncio.wait([turn], timeout=self._follow_s)
            if not turn.done():
                return None
            outcome = turn.result()
        except asyncio.CancelledError:
            if turn.done() and turn.result() == "lead":
                self.abandon(flight)
            raise
        finally:
            self._waiting -= 1
            turn.cancel()
            with contextlib.suppress(ValueError):  # else those who left would wait on in memory
                flight.waiting.remove(turn)
        if isinstance(outcome, Answer):
            return outcome
        return flight if outcome == "lead" else None

    def share(self, flight: Flight, answer: Answer) -> None:
        """The leader has its answer. The flight goes on until `land`, and gives it to whoever comes."""
        if flight.outdated:
            self.land(flight)
            return
        flight.answer = answer
        self._tell_all(flight, answer)

    def land(self, flight: Flight) -> None:
        """It is over: what it brought is stored, or is nothing to be shared."""
        self._flights.pop(flight.key, None)
        self._tell_all(flight, "alone")

    def abandon(self, flight: Flight) -> None:
        """The leader failed or left: the next leads."""
        while flight.waiting:
            turn = flight.waiting.popleft()
            if not turn.done():
                turn.set_result("lead")
                return
        self._flights.pop(flight.key, None)

    def outdate(self) -> None:
        """All that is being answered now may not be stored or shared any more."""
        for flight in self._flights.values():
            flight.outdated = True
            self._tell_all(flight, "alone")

    def _tell_all(self, flight: Flight, outcome: Outcome) -> None:
        for turn in flight.waiting:
            if not turn.done():
                turn.set_result(outcome)
        flight.waiting.clear()
