"""An answer on its way to the client, past the rules.

Each choice has its texts: what it says, its reasoning, the arguments of each tool call. Their order is kept: what follows a
text that is held back waits with it, until more than `MOST_BEHIND` characters wait; then that text is judged as if it had ended.
Should it go on after all, a match over the joint is cut from there. Token ids and log-probabilities go out with the last of their text,
or not at all where any of it was changed. A refusal ends its choice; when all have ended, so does the answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec import Struct
from msgspec.structs import replace

from penstock.core.types import Delta, Event, Finish, FinishReason, Judge, ToolCallPiece
from penstock.guard.enforced import Enforced
from penstock.guard.protocol import Checked
from penstock.guard.rule import Part
from penstock.guard.screen import Refused, Screen, Spoken
from penstock.guard.strand import Strand

MOST_BEHIND = 256  # characters that wait for those before them, which another text cut off

_RANK = {"reasoning": 0, "text": 1, "arguments": 2}  # the order in which one piece is read


async def watched(
    rules: Sequence[Enforced], checked: Checked, events: AsyncGenerator[Event, None], judge: Judge, hold_chars: int
) -> AsyncGenerator[Event, None]:
    """`events`, guarded. What the rules found is told before the end, also when the client leaves."""
    screen = Screen(rules, checked, judge, hold_chars)
    choices: dict[int, _Choice] = {}
    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Delta):
                    choice = choices.setdefault(event.index, _Choice(screen, event.index, streams=checked.request.streams))
                    for delta in await choice.take(event):
                        yield delta
                    if choice.refused and len(choices) == checked.request.n and all(choice.refused for choice in choices.values()):
                        event = Finish(reason="content_filter")
                if isinstance(event, Finish):
                    if event.reason not in ("abort", "error"):
                        for choice in choices.values():
                            for delta in await choice.end(event.reason):
                                yield delta
                    await _review(screen, choices)
                    screen.close()
                    yield _ended(event, choices)
                    return
                if not isinstance(event, Delta):
                    yield event
    finally:
        screen.close()


class _Piece(Struct, frozen=True):
    """A piece that came in, and where it lies in its texts."""

    delta: Delta
    places: tuple[tuple[Strand, int, int], ...]

    @property
    def is_out(self) -> bool:
        return all(strand.sent >= end for strand, _, end in self.places)

    @property
    def is_whole(self) -> bool:
        return not any(begin < e and b < end for strand, begin, end in self.places for b, e in strand.altered)


class _Channel:
    """One text of a choice and, of a tool call, what comes before its arguments."""

    def __init__(self, strand: Strand, call: int | None) -> None:
        self.strand = strand
        self.call = call
        self.opening: ToolCallPiece | None = None
        self.said: list[str] = []  # all of it, where somebody only watches


class _Out(Struct, frozen=True):
    """Some of a channel that may go out."""

    channel: _Channel
    text: str
    opening: ToolCallPiece | None


class _Choice:
    """One choice of the answer. `refused`: it was ended by a rule."""

    def __init__(self, screen: Screen, index: int, *, streams: bool) -> None:
        self.refused = False
        self._ended = False
        self._screen = screen
        self._index = index
        self._streams = streams
        self._channels: dict[str | int, _Channel] = {}
        self._queue: deque[_Channel] = deque()  # those that are not finished with; only the first goes out
        self._waiting: deque[_Piece] = deque()  # pieces that are not out

    async def take(self, delta: Delta) -> list[Delta]:
        """What goes out now that `delta` has come in. Raises nothing: a refusal ends the choice."""
        if self.refused:
            return []
        places = []
        if delta.reasoning:
            places.append(self._add("reasoning", "reasoning", delta.reasoning))
        if delta.text:
            places.append(self._add("text", "text", delta.text))
        places += [self._add(call.index, "arguments", call.arguments, call) for call in delta.tool_calls]
        self._waiting.append(_Piece(delta, tuple(places)))
        if delta.finish_reason is not None:
            return await self._settle(final=True)
        return await self._settle(final=False) if self._streams else []

    async def end(self, reason: FinishReason) -> list[Delta]:
        """The last of it, where no piece said that it was the last."""
        if self.refused or self._ended:
            return []
        return await self.take(Delta(index=self._index, finish_reason=reason, num_pieces=0))

    def spoken(self) -> list[Spoken]:
        """Its texts as the model gave them."""
        return [Spoken("".join(channel.said), channel.strand.part) for channel in self._channels.values()]

    def _add(self, key: str | int, part: Part, text: str, call: ToolCallPiece | None = None) -> tuple[Strand, int, int]:
        channel = self._channels.get(key)
        if channel is None:
            strand = Strand(self._screen, part)
            channel = self._channels[key] = _Channel(strand, None if call is None else call.index)
        if call is not None and (call.id is not None or call.name is not None or not channel.strand.taken):
            channel.opening = replace(call, arguments="")
        if channel not in self._queue:
            self._queue.append(channel)
        if self._screen.watching:
            channel.said.append(text)
        begin = channel.strand.taken
        channel.strand.take(text)
        return channel.strand, begin, channel.strand.taken

    async def _settle(self, *, final: bool) -> list[Delta]:
        outs: list[_Out] = []
        while self._queue:
            channel = self._queue[0]
            waits_behind = sum(other.strand.taken - other.strand.sent for other in self._queue if other is not channel)
            ends = final or (waits_behind > MOST_BEHIND and not channel.strand.holds_all)
            passed = await channel.strand.advance(final=ends)
            if passed.text or channel.opening is not None:
                outs.append(_Out(channel, passed.text, channel.opening))
                channel.opening = None
            if passed.refused is not None:
                return self._refuse(passed.refused, outs)
            if channel.strand.waits or (len(self._queue) == 1 and not final):
                break
            self._queue.popleft()
        return self._deltas(outs)

    def _refuse(self, refused: Refused, outs: Sequence[_Out]) -> list[Delta]:
        self.refused = True
        self._screen.refuse(refused)
        last = Delta(index=self._index, finish_reason="content_filter", num_pieces=0)
        return [*self._deltas(outs), last]

    def _deltas(self, outs: Sequence[_Out]) -> list[Delta]:
        """Pieces for the client: as they came in where nothing was held or changed."""
        first = self._waiting[0] if self._waiting else None
        if first is not None and len(self._waiting) == 1 and first.is_out and first.is_whole:
            self._waiting.clear()
            self._ended = first.delta.finish_reason is not None
            return [first.delta]
        done: list[_Piece] = []
        while self._waiting and self._waiting[0].is_out:
            done.append(self._waiting.popleft())
        if not outs and not done:
            return []
        *earlier, last = _grouped(outs) or [[]]
        deltas = [_delta(self._index, group) for group in earlier]
        return [*deltas, self._with_tokens(_delta(self._index, last), done)]

    def _with_tokens(self, delta: Delta, done: Sequence[_Piece]) -> Delta:
        """`delta` with what is told of the tokens of the pieces that are out with it."""
        if not done:
            return delta
        ending = done[-1].delta
        self._ended = ending.finish_reason is not None
        delta = replace(delta, finish_reason=ending.finish_reason, stop_reason=ending.stop_reason)
        if not all(piece.is_whole for piece in done):
            return replace(delta, num_pieces=sum(len(piece.delta.token_ids) or piece.delta.num_pieces for piece in done))
        scored = [piece.delta.logprobs for piece in done if piece.delta.logprobs is not None]
        return replace(
            delta,
            token_ids=tuple(token for piece in done for token in piece.delta.token_ids),
            logprobs=tuple(token for some in scored for token in some) if scored else None,
            num_pieces=sum(piece.delta.num_pieces for piece in done),
        )


def _grouped(outs: Sequence[_Out]) -> list[list[_Out]]:
    """Runs that one piece can carry: it is read reasoning first, then text, then calls."""
    groups: list[list[_Out]] = []
    for out in outs:
        rank = _RANK[out.channel.strand.part]
        if groups and rank >= _RANK[groups[-1][-1].channel.strand.part]:
            groups[-1].append(out)
        else:
            groups.append([out])
    return groups


def _delta(index: int, outs: Sequence[_Out]) -> Delta:
    said = {part: "".join(out.text for out in outs if out.channel.strand.part == part) for part in ("reasoning", "text")}
    calls = tuple(
        replace(out.opening or ToolCallPiece(index=out.channel.call), arguments=out.text) for out in outs if out.channel.call is not None
    )
    return Delta(index=index, text=said["text"], reasoning=said["reasoning"], tool_calls=calls, num_pieces=0)


async def _review(screen: Screen, choices: dict[int, _Choice]) -> None:
    if screen.watching:
        await screen.review([spoken for choice in choices.values() for spoken in choice.spoken()])


def _ended(finish: Finish, choices: dict[int, _Choice]) -> Finish:
    """Why the answer ended: an answer that is whole but for one choice that was refused was refused."""
    if finish.reason in ("abort", "error") or not any(choice.refused for choice in choices.values()):
        return finish
    return replace(finish, reason="content_filter")
