"""One verdict on a text and on all that it may say besides."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.guard.enforced import Enforced, Verdict
from penstock.guard.rule import Opinion, Span, Text
from penstock.guard.views import View


async def judged(rule: Enforced, text: Text, views: Sequence[View]) -> Verdict:
    """What `rule` says of `text`, its `views` included, in the places of the text."""
    verdict = await rule.ask(text)
    for view in views if rule.reads.decodes else ():
        if verdict.failed:
            break
        hidden = await rule.ask(_seen(text, view))
        verdict = Verdict(
            opinion=_merged(verdict.opinion, hidden.opinion, view),
            failed=hidden.failed,
            took_s=verdict.took_s + hidden.took_s,
        )
    return verdict


def _seen(text: Text, view: View) -> Text:
    return Text(
        text=view.text,
        where=text.where,
        role=text.role,
        part=text.part,
        start=view.here(text.start),
        after=text.after,
        system=text.system,
        decoded_by=view.decoded_by,
        principal=text.principal,
        request=text.request,
    )


def _merged(plain: Opinion, hidden: Opinion, view: View) -> Opinion:
    """One opinion of a text and of a view of it, in the places of the text."""
    scores = [score for score in (plain.score, hidden.score) if score is not None]
    if not hidden.why:
        return Opinion(why=plain.why, score=max(scores, default=None), spans=plain.spans)
    there = (Span(*view.there(span.start, span.end), span.kind, span.goes_on) for span in hidden.spans)
    spans = [span for span in there if span not in plain.spans]  # what both say is found once
    why = plain.why or f"{hidden.why} (hidden by {', '.join(view.decoded_by)})"
    return Opinion(why=why, score=max(scores, default=None), spans=(*plain.spans, *spans))
