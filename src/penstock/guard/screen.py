"""What the rules find in one answer: asked of each stretch of it, counted, and told at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from penstock.core.types import Judge, Judgement
from penstock.guard.cuts import Cut, Restorer, cuts_of
from penstock.guard.decode import cut_escape, streamed
from penstock.guard.enforced import Enforced, Verdict
from penstock.guard.hidden import judged
from penstock.guard.protocol import Checked
from penstock.guard.rule import Foreseeing, Opinion, Part, Text
from penstock.guard.views import View

CONTEXT = 64  # characters that a rule sees before what it judges, where its reach is less


class Refused(Exception):
    """The answer must not go on: from `at`, in characters of the text that was read."""

    def __init__(self, judgement: Judgement, at: int) -> None:
        super().__init__(judgement.rule)
        self.judgement = judgement
        self.at = at


class Seen(Struct, frozen=True):
    """What was found in a text: `cuts`, and from where on (`pending`) a match may still be growing."""

    cuts: tuple[Cut, ...]
    pending: int


class _Tally:
    """What one rule found so far."""

    __slots__ = ("counts", "failed", "score", "took_s", "whys")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.whys: dict[str, None] = {}
        self.score: float | None = None
        self.took_s = 0.0
        self.failed = False


class Screen:
    """The rules over one answer. Their findings are told once each, by `close`; a refusal and a failure at once."""

    def __init__(self, rules: Sequence[Enforced], checked: Checked, judge: Judge, hold_chars: int) -> None:
        self._request = checked.request
        self._judge = judge
        self._tallies = {rule: _Tally() for rule in rules}
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

    async def look(self, rules: Sequence[Enforced], text: str, start: int, part: Part) -> Seen:
        """What `rules` of the unit "span", and the placeholders, make of a text that goes on. Raises Refused."""
        view = streamed(text, is_json=part == "arguments")
        cuts: list[Cut] = []
        pending = cut_escape(text) if part == "arguments" else len(text)
        if self.restorer is not None:
            cuts += self.restorer.cuts(text, start, escaped=part == "arguments")
            pending = min(pending, self.restorer.pending(text, start))
        for rule in rules:
            cuts += await self.find(rule, text, start, part, view)
            at = _pending(rule, text, start, view)
            if len(text) - at > self.hold_chars:
                self.fail(rule, f"a match grew past guard.hold_chars ({self.hold_chars})", at)
                cuts = [cut for cut in cuts if cut.by is not rule or cut.end <= at]
                at = len(text)
            pending = min(pending, at)
        return Seen(tuple(cuts), pending)

    async def find(self, rule: Enforced, text: str, start: int, part: Part, view: View | None = None) -> list[Cut]:
        """What `rule` would cut out of a text. Raises Refused where it objects to all of it, or fails and is closed."""
        asked = Text(
            text=text,
            where="output",
            role="assistant",
            part=part,
            start=start,
            principal=self._request.principal,
            request=self._request,
        )
        verdict = await judged(rule, asked, [view] if view is not None else [])
        tally = self._tallies[rule]
        tally.took_s += verdict.took_s
        if verdict.failed:
            self.fail(rule, verdict.failed, start)
            return []
        opinion = verdict.opinion
        action = rule.action(self._request.principal)
        if opinion.why and not opinion.spans and not rule.shadow:
            raise Refused(self._told(rule, opinion, "refuse"), start)
        if opinion.why:
            tally.whys.setdefault(opinion.why)
            if opinion.score is not None:
                tally.score = max(opinion.score, tally.score or opinion.score)
        return cuts_of(opinion.spans, rule, action)

    def fail(self, rule: Enforced, why: str, at: int) -> None:
        """Tell of a failure, once. Raises Refused where the rule is closed."""
        tally = self._tallies[rule]
        judgement = rule.failure(why, tally.took_s)
        if not tally.failed:
            tally.failed = True
            self._judge(judgement)
        if judgement.action == "refuse" and not rule.shadow:
            raise Refused(judgement, at)
