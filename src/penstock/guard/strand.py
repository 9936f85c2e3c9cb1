"""One text of an answer as it grows: what is clean goes on, what may not be is held back.

    context        held back
    ┌─────────────┬───────────────────────────────┐
    │ already sent│ clean │ found │ may be growing │   the text that is kept
    └─────────────┴───────┴───────┴────────────────┘
                  ↑ sent                  ↑ pending

Whatever comes out was judged as part of a text that went on from it far enough for no more text to change the judgement.
"""

from __future__ import annotations

from msgspec import Struct

from penstock.guard.cuts import Cut, Patch, patches
from penstock.guard.rule import Part
from penstock.guard.screen import Refused, Screen
from penstock.guard.sentences import sentence_end, sentences

LONGEST_SENTENCE = 500  # characters; a longer one is judged in parts


class Passed(Struct, frozen=True, kw_only=True):
    """What of a text may go out now, and the refusal that ends it."""

    text: str = ""
    refused: Refused | None = None


class Strand:
    """`taken` and `sent` count the characters that came in and that were dealt with; `altered` is where they were changed last."""

    def __init__(self, screen: Screen, part: Part) -> None:
        self.part = part
        self.taken = 0
        self.sent = 0
        self.altered: list[tuple[int, int]] = []
        self._screen = screen
        self._text = ""  # what is kept
        self._before = 0  # characters that came before it
        self._looked = 0  # `taken` when it was last looked at
        self._floor = 0  # where matches may begin: earlier than `sent` only after a forced end
        self._judged = 0  # up to where sentences are
        self._last: Cut | None = None  # what was cut out right before `sent`
        self._kept: list[Cut] = []  # found in sentences, placed in the whole text
        self._spans = screen.reads(screen.spans, part)
        self._sentences = screen.reads(screen.sentences, part)
        self._wholes = screen.reads(screen.wholes, part)
        self._refused: Refused | None = None
        self._looks = bool(self._spans or self._sentences or self._wholes or screen.restorer)

    @property
    def waits(self) -> bool:
        return self.sent < self.taken

    @property
    def holds_all(self) -> bool:
        """Whether nothing goes out before the end."""
        return bool(self._wholes)

    def take(self, text: str) -> None:
        self._text += text
        self.taken += len(text)

    async def advance(self, *, final: bool) -> Passed:
        """Whatever may go out now. `final`: as if no more would come; if it does, what was sent stands."""
        if not self._looks:
            return self._all()
        if not self.waits or (not final and (self.holds_all or self._looked == self.taken)):
            return Passed()
        self._looked = self.taken
        out: list[str] = []
        try:
            cuts, pending = await self._look(final=final)
            self._send(patches(cuts), pending if not final or self._refused else len(self._text), out)
        except Refused as refused:
            self._refused = refused
        if self._refused is None:
            self._forget(min(pending, self.sent - self._before))
        return Passed(text="".join(out), refused=self._refused)

    async def _look(self, *, final: bool) -> tuple[list[Cut], int]:
        """All that is to be cut in the text that is kept, and where something may still be growing."""
        last = self._last if self._floor == self.sent - self._before else None
        seen = await self._screen.look(self._spans, self._text, self._floor, self.part, final=final, last=last)
        cuts, pending = list(seen.cuts), seen.pending
        if self._sentences:
            end = await self._judge_sentences(final=final)
            pending = end if final else min(pending, end)
            cuts += [_moved(cut, -self._before) for cut in self._kept if cut.end > self.sent]
        for rule in self._wholes:
            cuts += await self._screen.find(rule, self._text, self._floor, self.part)
        return cuts, pending

    async def _judge_sentences(self, *, final: bool) -> int:
        """Judge each sentence that is whole. Where the first begins that is not, or that is refused; a very long one is judged in parts."""
        start = self._judged - self._before
        end = len(self._text) if final else sentence_end(self._text, start)
        if len(self._text) - end > LONGEST_SENTENCE:
            end = max(self._text.rfind(" ", end) + 1, end) or len(self._text)
        for begin, stop in sentences(self._text[:end], start):
            self._judged = self._before + begin
            try:
                for rule in self._sentences:
                    found = await self._screen.find(rule, self._text[begin:stop], 0, self.part)
                    self._kept += [_moved(cut, self._before + begin) for cut in found]
            except Refused as refused:
                self._refused = refused
                return begin
        self._judged = self._before + end
        return end

    def _send(self, found: list[Patch], safe: int, out: list[str]) -> None:
        """Send the text up to `safe`, or up to the patch that reaches beyond it. Raises Refused at one that may not be."""
        for patch in found:
            if patch.end > safe:
                safe = min(safe, patch.start)
                break
            self._pass(patch, out)
        out.append(self._upto(safe))

    def _pass(self, patch: Patch, out: list[str]) -> None:
        """Send what stands before a patch, and what replaces it."""
        if patch.end <= self.sent - self._before:  # it went out at a forced end
            return
        out.append(self._upto(patch.start))
        out.append(self._screen.cut(patch))
        self._last = patch.cut
        self.altered.append((self.sent, self._before + patch.end))
        self.sent = self._before + patch.end

    def _upto(self, at: int) -> str:
        """Send the text up to `at` as it is."""
        start = self.sent - self._before
        if at <= start:
            return ""
        self.sent = self._before + at
        self._last = None
        return self._text[start:at]

    def _all(self) -> Passed:
        text, self._text = self._text, ""
        self.sent = self._before = self.taken
        return Passed(text=text)

    def _forget(self, floor: int) -> None:
        """Keep no more than what rules may look back at."""
        drop = max(0, floor - self._screen.context)
        self._text = self._text[drop:]
        self._before += drop
        self._floor = floor - drop
        self._kept = [cut for cut in self._kept if cut.end > self.sent]


def _moved(cut: Cut, by: int) -> Cut:
    return Cut(start=cut.start + by, end=cut.end + by, kind=cut.kind, action=cut.action, by=cut.by, goes_on=cut.goes_on)
