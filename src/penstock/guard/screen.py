"""What the rules find in one answer: asked of each stretch of it, counted, and told at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from penstock.core.types import Judge, Judgement
from penstock.guard.cuts import Cut, Patch, Restorer, cuts_of, placeholder
from penstock.guard.decode import cut_escape, streamed
from penstock.guard.enforced import Enforced
from penstock.guard.hidden import judged
from penstock.guard.protocol import Checked
from penstock.guard.rule import Foreseeing, Part, Text
from penstock.guard.sentences import sentences
from penstock.guard.views import View

CONTEXT = 64  # characters that a rule sees before what it judges, where its reach is less


class Refused(Exception):
    """The answer must not go on."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__(judgement.rule)
        self.judgement = judgement


class Spoken(Struct, frozen=True):
    """A text of an answer as the model gave it."""

    text: str
    part: Part


class Seen(Struct, frozen=True):
    """What was found in a text: `cuts`, and from where on (`pending`) a match may still be growing."""

    cuts: tuple[Cut, ...]
    pending: int


class _Tally(Struct):
    """What one rule found so far."""

    counts: Counter[str]  # stretches cut out, by kind
    why: str = ""  # in the rule's own words, of the latest it objected to
    score: float | None = None
    took_s: float = 0.0
    failed: bool = False


class Screen:
    """The rules over one answer. Their findings are told once each, by `close`; a refusal and a failure at once."""

    def __init__(self, rules: Sequence[Enforced], checked: Checked, judge: Judge, hold_chars: int) -> None:
        self._request = checked.request
        self._judge = judge
        self._tallies = {rule: _Tally(Counter()) for rule in rules}
        self.hold_chars = hold_chars
        self.restorer = Restorer(dict(checked.originals)) if checked.originals else None
        acting = [rule for rule in rules if not rule.shadow]
        self.watching = [rule for rule in rules if rule.shadow]
        self.spans = [rule for rule in acting if rule.reads.unit == "span"]
        self.sentences = [rule for rule in acting if rule.reads.unit == "sentence"]
        self.wholes = [rule for rule in acting if rule.reads.unit == "whole"]
        self.context = min(hold_chars, max((rule.reads.reach or 0 for rule in self.spans), default=0)) if self.spans else 0
        self.context = max(CONTEXT, self.context)

    def reads(self, rules: Sequence[Enforced], part: Part) -> list[Enforced]:
        """Those of `rules` that read this part of an answer."""
        return [rule for rule in rules if part in rule.reads.parts]

    async def look(self, rules: Sequence[Enforced], text: str, start: int, part: Part, *, final: bool, last: Cut | None = None) -> Seen:
        """What `rules` of the unit "span", and the placeholders, make of a text that goes on, or is `final`. Raises Refused.

        `last` was cut out right before `start`.
        """
        view = streamed(text, is_json=part == "arguments")
        cuts: list[Cut] = []
        pending = cut_escape(text) if part == "arguments" else len(text)
        if self.restorer is not None:
            cuts += self.restorer.cuts(text, start, escaped=part == "arguments")
            pending = min(pending, self.restorer.pending(text, start))
        for rule in rules:
            after = last.kind if last is not None and last.by is rule else ""
            found = await self.find(rule, text, start, part, view, after)
            cuts += found
            at = max(_pending(rule, text, start, view), *(cut.end for cut in found if cut.goes_on), 0)
            if len(text) - at > self.hold_chars and not final:
                self.fail(rule, f"a match grew past guard.hold_chars ({self.hold_chars})")
                cuts = [cut for cut in cuts if cut.by is not rule or cut.end <= at]
                at = len(text)
            pending = min(pending, at)
        return Seen(tuple(cuts), pending)

    async def find(self, rule: Enforced, text: str, start: int, part: Part, view: View | None = None, after: str = "") -> list[Cut]:
        """What `rule` would cut out of a text. Raises Refused where it objects to all of it, or fails and is closed."""
        asked = Text(
            text=text,
            where="output",
            role="assistant",
            part=part,
            start=start,
            after=after,
            principal=self._request.principal,
            request=self._request,
        )
        verdict = await judged(rule, asked, [view] if view is not None else [])
        tally = self._tallies[rule]
        tally.took_s += verdict.took_s
        if verdict.failed:
            self.fail(rule, verdict.failed)
            return []
        opinion = verdict.opinion
        action = rule.action(self._request.principal)
        if opinion.why:
            tally.why = opinion.why
            tally.score = max((score for score in (tally.score, opinion.score) if score is not None), default=None)
            if not opinion.spans:
                raise Refused(self._refusal(rule))
        return cuts_of(opinion.spans, rule, action)

    def cut(self, patch: Patch) -> str:
        """What goes out instead of a stretch. Raises Refused."""
        if (refusing := patch.refusing) is not None and refusing.by is not None:
            raise Refused(self._refusal(refusing.by))
        for cut in patch.cuts:
            if cut.by is not None and not cut.goes_on:
                self._tallies[cut.by].counts[cut.kind] += 1
        if patch.cut.by is None:
            return patch.cut.back
        return "" if patch.cut.goes_on else placeholder(patch.cut.kind)

    async def review(self, texts: Sequence[Spoken]) -> None:
        """Ask the rules that change nothing what they would have done about the answer as the model gave it."""
        for rule in self.watching:
            for text in texts:
                if text.part in rule.reads.parts:
                    await self._review(rule, text)

    async def _review(self, rule: Enforced, text: Spoken) -> None:
        stretches = sentences(text.text) if rule.reads.unit == "sentence" else [(0, len(text.text))]
        for start, end in stretches:
            stretch = text.text[start:end]
            try:
                for cut in await self.find(rule, stretch, 0, text.part, streamed(stretch, is_json=text.part == "arguments")):
                    self._tallies[rule].counts[cut.kind] += 1
            except Refused:  # once is enough to know
                return

    def refuse(self, refused: Refused) -> None:
        """Tell of a refusal."""
        self._judge(refused.judgement)

    def close(self) -> None:
        """Tell what each rule found that was not told yet."""
        for rule, tally in self._tallies.items():
            if tally.counts or (rule.shadow and tally.why):
                counted = ", ".join(f"{count} × {kind}" for kind, count in sorted(tally.counts.items()))
                action = rule.action(self._request.principal)
                why = tally.why if action == "refuse" else counted or tally.why
                self._judge(rule.judgement(action, why, score=tally.score, took_s=tally.took_s))
        self._tallies = {rule: _Tally(Counter()) for rule in self._tallies}

    def _refusal(self, rule: Enforced) -> Judgement:
        tally = self._tallies[rule]
        return rule.judgement("refuse", tally.why, score=tally.score, took_s=tally.took_s)

    def fail(self, rule: Enforced, why: str) -> None:
        """Tell of a failure, once. Raises Refused where the rule is closed."""
        tally = self._tallies[rule]
        judgement = rule.failure(why, tally.took_s)
        if not tally.failed and (rule.shadow or judgement.action != "refuse"):
            tally.failed = True
            self._judge(judgement)
        if judgement.action == "refuse" and not rule.shadow:
            raise Refused(judgement)


def _pending(rule: Enforced, text: str, start: int, view: View | None) -> int:
    """Where a match of `rule` may still be growing, in `text` or in what it reads as."""
    at = _growing(rule, text, start)
    if view is not None and rule.reads.decodes:
        return min(at, view.there(_growing(rule, view.text, view.here(start)), len(view.text))[0])
    return at


def _growing(rule: Enforced, text: str, start: int) -> int:
    if isinstance(rule.rule, Foreseeing):
        return max(start, rule.rule.pending(text, start))
    if rule.reads.reach is None:
        return start
    return max(start, len(text) - rule.reads.reach + 1)
