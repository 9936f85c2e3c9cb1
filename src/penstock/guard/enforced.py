"""A rule and what the settings make of it: where it reads, what it does for which key, how long it may take."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback

from msgspec import Struct

from penstock.core.config import Action, RuleSettings
from penstock.core.types import Judgement, Principal, Request
from penstock.guard.rule import Opinion, Rule, Selective, Span, Text, Where

log = logging.getLogger(__name__)

MOST_WHY = 300  # characters


class Verdict(Struct, frozen=True, kw_only=True):
    """What came of asking a rule: its opinion, or why it has none."""

    opinion: Opinion = Opinion()
    failed: str = ""
    took_s: float = 0.0


class Enforced:
    """A rule in force. `shadow`: it changes nothing."""

    def __init__(self, rule: Rule, settings: RuleSettings, *, shadow: bool = False) -> None:
        self.rule = rule
        self.reads = rule.reads
        self.name = settings.name or settings.kind
        self.on: frozenset[Where] = frozenset(settings.on or self.reads.where)
        self.shadow = shadow or settings.dry_run
        self.refuses_when_failed = settings.when_failed == "closed"
        self.budget_s = settings.budget_s
        self._settings = settings

    def action(self, principal: Principal) -> Action:
        """What follows when the rule objects; "allow": it is not even asked."""
        return self._settings.keys.get(principal.name, self._settings.action)

    def wants(self, text: Text) -> bool:
        """Whether the rule reads texts like this one."""
        if text.where not in self.on or text.part not in self.reads.parts:
            return False
        return text.where == "output" or text.role in self.reads.roles

    def concerns(self, request: Request) -> bool:
        """Whether it judges the answer to `request`."""
        if "output" not in self.on or self.action(request.principal) == "allow":
            return False
        return not isinstance(self.rule, Selective) or self.rule.concerns(request)

    async def ask(self, text: Text) -> Verdict:
        """The rule's opinion, within its budget. Whatever it raises is a failure of the rule and goes no further."""
        if self.reads.unit == "sentence" and not text.text.strip():
            return Verdict()
        started_s = time.perf_counter()
        limit = asyncio.timeout(self.budget_s)
        try:
            async with limit:
                opinion = self._sound(await self.rule.judge(text), text)
        except Exception as error:  # noqa: BLE001 (a plugin's may be anything; `failure` says what follows)
            if isinstance(error, TimeoutError) and limit.expired():
                failed = f"it took longer than {self.budget_s:g} s"
            else:  # its message may quote what it read
                failed = f"it failed with {type(error).__name__}"
                where = traceback.extract_tb(error.__traceback__)[-1]
                log.error("the rule %r failed with %s at %s:%d", self.name, type(error).__name__, where.filename, where.lineno or 0)
            return Verdict(failed=failed, took_s=time.perf_counter() - started_s)
        return Verdict(opinion=opinion, took_s=time.perf_counter() - started_s)

    def judgement(self, action: str, why: str, *, score: float | None = None, took_s: float = 0.0) -> Judgement:
        """A decision of this rule, as the trace and the ledger know it."""
        return Judgement(room="guard", rule=self.name, action=action, why=why[:MOST_WHY], score=score, shadow=self.shadow, took_s=took_s)

    def failure(self, why: str, took_s: float = 0.0) -> Judgement:
        """What follows from a failure: a refusal where the rule is closed."""
        return self.judgement("refuse" if self.refuses_when_failed else "allow", why, took_s=took_s)

    def _sound(self, opinion: Opinion, text: Text) -> Opinion:
        """The opinion with spans that lie in the text, where they may; those of an objection to the whole text are one."""
        if not opinion.why:
            return opinion
        length = len(text.text)
        spans = [span for span in opinion.spans if text.start <= span.start < span.end <= length]
        if not spans and opinion.spans:
            return Opinion(score=opinion.score)  # all of it was sent before
        if not spans and self.reads.cuts and text.start < length:
            spans = [Span(text.start, length, self.name.upper())]
        return Opinion(why=opinion.why, score=opinion.score, spans=tuple(sorted(spans, key=lambda span: (span.start, -span.end))))
