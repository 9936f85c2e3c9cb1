"""Finding stop strings in text that comes in pieces.

One automaton for all of them (Aho and Corasick, "Efficient string matching", 1975): one step per character however many
strings there are, and the result does not depend on where the pieces were cut.
"""

from __future__ import annotations

from collections import deque


class StopStrings:
    """States are prefixes of the stop strings, 0 the empty one: the longest that the text read so far ends with."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._fallback = [0]  # the state's longest proper suffix that is a state too
        self.length = [0]  # characters in the state's prefix
        self.found: list[str | None] = [None]  # the longest stop string that a text in this state ends with
        for stop in stops:
            self._add(stop)
        self._link()

    def _add(self, stop: str) -> None:
        state = 0
        for char in stop:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._fallback.append(0)
                self.length.append(self.length[state] + 1)
                self.found.append(None)
            state = self._next[state][char]
        self.found[state] = stop

    def _link(self) -> None:
        """Breadth first, so that a state's shorter suffixes are linked before it."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for char, child in self._next[state].items():
                self._fallback[child] = self.step(self._fallback[state], char)
                self.found[child] = self.found[child] or self.found[self._fallback[child]]
                waiting.append(child)

    def step(self, state: int, char: str) -> int:
        """The state after one more character. Amortised constant: each fallback gives back a step taken earlier."""
        while char not in self._next[state]:
            if state == 0:
                return 0
            state = self._fallback[state]
        return self._next[state][char]

    def passed(self, state: int) -> int:
        """The state to go on from when what `state` found is not to count."""
        return state if self._next[state] else self._fallback[state]
