"""From a sequence's tokens to the text its client sees: whole characters, cut at the first stop string."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from penstock.core.errors import InvalidRequest
from penstock.text.stops import StopStrings
from penstock.text.tokenizer import Tokenizer


class Piece(Struct, frozen=True):
    """The text that some tokens completed. With a `stop_reason` the stream has ended and later tokens do not count."""

    text: str
    num_tokens: int  # of the pushed tokens, how many were consumed: fewer than pushed only where a stop string ended it
    stop_reason: str | None = None  # the stop string that was found


class TextStream:
    """The text of one sequence. Holds back no more than half a character and what may be the beginning of a stop string.

    The stop string that is complete first wins, of several that end at the same character the longest. One that the first
    `min_tokens` tokens complete is ordinary text. Neither depends on how the tokens were split into pushes.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop: tuple[str, ...] = (),
        include_stop: bool = False,
        skip_special_tokens: bool = True,
        min_tokens: int = 0,
        prompt_tail: Sequence[int] = (),
    ) -> None:
        """`prompt_tail`: the prompt's tokens, or the last of them, which the text continues.

        Raises InvalidRequest for an empty stop string, which would be found everywhere.
        """
        if "" in stop:
            raise InvalidRequest("a stop string is empty", hint="leave it out", param="stop")
        self._detokenizer = tokenizer.detokenizer(skip_special_tokens=skip_special_tokens, prompt_tail=prompt_tail)
        self._stops = StopStrings(stop)
        self._has_stops = bool(stop)
        self._include_stop = include_stop
        self._min_tokens = min_tokens
        self._num_tokens = 0
        self._state = 0
        self._held = ""

    def push(self, token_ids: Sequence[int], *, final: bool = False) -> Piece:
        """The text that may be shown now. `final`: no tokens follow, so nothing is held back any more."""
        if not self._has_stops:
            text = self._detokenizer.push(token_ids)
            return Piece(text + self._detokenizer.flush() if final else text, len(token_ids))
        for index, token_id in enumerate(token_ids):
            self._num_tokens += 1
            stop = self._read(self._detokenizer.push((token_id,)))
            if stop is not None:
                return self._stopped(stop, index + 1)
        stop = self._read(self._detokenizer.flush()) if final else None
        if stop is not None:
            return self._stopped(stop, len(token_ids))
        return Piece(self._release(0 if final else self._stops.length[self._state]), len(token_ids))

    def _read(self, text: str) -> str | None:
        """Take `text` into what is held, up to the end of the first stop string in it, and return that."""
        stops, state = self._stops, self._state
        for index, char in enumerate(text):
            state = stops.step(state, char)
            stop = stops.found[state]
            if stop is None:
                continue
            if self._num_tokens > self._min_tokens:
                self._held += text[: index + 1]
                return stop
            state = stops.passed(state)
        self._held += text
        self._state = state
        return None

    def _release(self, keep: int) -> str:
        """All held text but its last `keep` characters."""
        end = len(self._held) - keep
        text, self._held = self._held[:end], self._held[end:]
        return text

    def _stopped(self, stop: str, num_tokens: int) -> Piece:
        text = self._release(0)
        return Piece(text if self._include_stop else text.removesuffix(stop), num_tokens, stop)
