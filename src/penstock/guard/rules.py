"""The guard made of rules.

Every text of a request is judged, each rule by itself and by the text as it was written, so that their order changes nothing. Of the
actions that follow the strictest wins. What a rule said of a text is remembered, so that a long chat pays for its last turn only.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence

from msgspec import Struct

from penstock.core.config import Action
from penstock.core.types import Event, Judge, Judgement, Message, Request
from penstock.guard.cuts import Cut, Placeholders, cuts_of
from penstock.guard.decode import readings
from penstock.guard.enforced import Enforced, Verdict
from penstock.guard.hidden import judged
from penstock.guard.protocol import Checked
from penstock.guard.rule import Opinion, Text
from penstock.guard.slots import is_unreadable, texts_of, with_texts
from penstock.guard.stream import watched
from penstock.guard.views import View

MOST_REMEMBERED = 16_384  # opinions, about half a kilobyte each
MOST_SPANS = 64  # of an opinion that is remembered
UNREADABLE = "token ids cannot be read"
WARM = "The first sentence is short. The second one is short, too."
LONG = 4096  # characters that are decoded on the event loop


class _Found(Struct, frozen=True, kw_only=True):
    """What one rule says of a request: its verdicts by the place of the text."""

    rule: Enforced
    action: Action
    verdicts: Mapping[int, Verdict]

    @property
    def failed(self) -> str:
        return next((verdict.failed for verdict in self.verdicts.values() if verdict.failed), "")

    @property
    def objections(self) -> dict[int, Opinion]:
        return {place: verdict.opinion for place, verdict in self.verdicts.items() if verdict.opinion.why}

    @property
    def took_s(self) -> float:
        return sum(verdict.took_s for verdict in self.verdicts.values())

    def objection(self) -> Judgement | None:
        """What follows from all that it objects to."""
        if not (opinions := self.objections.values()):
            return None
        why = "; ".join(dict.fromkeys(opinion.why for opinion in opinions))
        scores = [opinion.score for opinion in opinions if opinion.score is not None]
        return self.rule.judgement(self.action, why, score=max(scores, default=None), took_s=self.took_s)

    def failure(self) -> Judgement | None:
        """What follows where it could not judge."""
        return self.rule.failure(self.failed, self.took_s) if self.failed else None


class RuleGuard:
    """A guard of `rules`. `hold_chars`: the most of a stream that is held back for rules that know how far they look."""

    def __init__(self, rules: Sequence[Enforced], hold_chars: int) -> None:
        self._rules = rules
        self._hold_chars = hold_chars
        self._remembered: OrderedDict[bytes, Opinion] = OrderedDict()

    async def check(self, request: Request, judge: Judge) -> Checked:
        """See `Guard`. A refused request comes back without what was found in it, for whoever writes it down."""
        rules = [(rule, action) for rule in self._rules if (action := rule.action(request.principal)) != "allow"]
        rules = [(rule, action) for rule, action in rules if rule.on & {"input", "tools"}]
        if not rules:
            return Checked(request=request)
        texts = texts_of(request)
        if is_unreadable(request):
            unread = {0: Verdict(failed=UNREADABLE)}
            found = [_Found(rule=rule, action=action, verdicts=unread) for rule, action in rules if "input" in rule.on]
        else:
            verdicts = await self._asked([rule for rule, _ in rules], texts)
            found = [_Found(rule=rule, action=action, verdicts=verdicts[rule]) for rule, action in rules]
        return _concluded(request, texts, found, judge)

    async def warm(self) -> None:
        """Ask each rule something, however long it takes. Raises what a rule raises that cannot judge at all."""
        nothing = Request(id="", model="", messages=(Message(role="user", content=WARM),))
        for rule in self._rules:
            where = rule.reads.where[0]
            role = "assistant" if where == "output" else rule.reads.roles[0]
            await rule.rule.judge(Text(text=WARM, where=where, role=role, request=nothing if where == "output" else None))

    def watch(self, checked: Checked, events: AsyncGenerator[Event, None], judge: Judge) -> AsyncGenerator[Event, None]:
        """See `Guard`."""
        rules = [rule for rule in self._rules if rule.concerns(checked.request)]
        if checked.request.inputs is not None or not (rules or checked.originals):
            return events
        return watched(rules, checked, events, judge, self._hold_chars)

    async def _asked(self, rules: Sequence[Enforced], texts: Sequence[Text]) -> dict[Enforced, dict[int, Verdict]]:
        """What each rule says of each text that it reads; only what is not remembered is asked."""
        found: dict[Enforced, dict[int, Verdict]] = {rule: {} for rule in rules}
        asked: list[tuple[Enforced, int, bytes]] = []
        told = {system: _digest(system.encode(errors="surrogatepass")) for system in {text.system for text in texts}}
        for place, text in enumerate(texts):
            digest = _digest_of(text, told[text.system])
            for rule in rules:
                if rule.wants(text):
                    key = digest + rule.name.encode()
                    known = self._remembered.get(key)
                    if known is None:
                        asked.append((rule, place, key))
                    else:
                        self._remembered.move_to_end(key)
                        found[rule][place] = Verdict(opinion=known)
        views = {place: await _readings(texts[place]) for place in {place for rule, place, _ in asked if rule.reads.decodes}}
        verdicts = await _all([(rule, texts[place], views.get(place, [])) for rule, place, _ in asked])
        for (rule, place, key), verdict in zip(asked, verdicts, strict=True):
            found[rule][place] = verdict
            if not verdict.failed:
                self._remember(key, verdict.opinion)
        return found

    def _remember(self, key: bytes, opinion: Opinion) -> None:
        if len(opinion.spans) > MOST_SPANS:
            return
        self._remembered[key] = opinion
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)


def _concluded(request: Request, texts: Sequence[Text], found: Sequence[_Found], judge: Judge) -> Checked:
    """What follows from all that was found, in the order of the rules."""
    told = [judgement for one in found for judgement in (one.objection(), one.failure()) if judgement is not None]
    for judgement in told:
        judge(judgement)
    refusal, failed = _refusal(found)
    cuts: dict[int, list[Cut]] = {}
    for one in found:
        if not one.rule.shadow:
            for place, opinion in one.objections.items():
                cuts.setdefault(place, []).extend(cuts_of(opinion.spans, one.rule, one.action))
    if not any(cuts.values()):
        return Checked(request=request, refusal=refusal, failed=failed)
    placeholders = Placeholders([text.text for text in texts])
    clean = (placeholders.redact(text.text, cuts.get(place, ()), escaped=text.part == "arguments") for place, text in enumerate(texts))
    return Checked(request=with_texts(request, clean), refusal=refusal, failed=failed, originals=placeholders.originals)


def _refusal(found: Sequence[_Found]) -> tuple[Judgement | None, bool]:
    """The first objection that refuses, else the first failure that does, and whether it may be gone another time."""
    acting = [one for one in found if not one.rule.shadow]
    objections = (one.objection() for one in acting if one.action == "refuse")
    if (refusal := next(filter(None, objections), None)) is not None:
        return refusal, False
    failures = (one.failure() for one in acting if one.rule.refuses_when_failed)
    refusal = next(filter(None, failures), None)
    return refusal, refusal is not None and refusal.why != UNREADABLE


async def _all(jobs: Sequence[tuple[Enforced, Text, Sequence[View]]]) -> list[Verdict]:
    if len(jobs) == 1:
        return [await judged(*jobs[0])]
    return await asyncio.gather(*(judged(*job) for job in jobs))


async def _readings(text: Text) -> list[View]:
    return readings(text.text) if len(text.text) <= LONG else await asyncio.to_thread(readings, text.text)


def _digest_of(text: Text, told: bytes) -> bytes:
    """Of all that an opinion may depend on; no key learns by the time it takes what another asked. `told` is its system prompt's."""
    parts = (text.principal.key_id, text.where, text.role, text.part, text.text)
    return _digest(told, *(part.encode(errors="surrogatepass") for part in parts))


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
