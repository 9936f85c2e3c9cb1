"""Whether an answer may be given to other words at all, before any question of likeness.

An answer stands for other requests only if it would be right for whoever asks, and tomorrow: so no answer that was drawn with much
chance, that called or could have called a tool, that was cut short or refused, that depends on the hour or on who asks, and none
that is meant to be different each time. Each rule gives its reason in a few words; None means that it may be stored.

The rules about text are for English. A question in another script is let through here and is held to strict equality of words by
`verify`; time-sensitive words of other languages are not known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock.core.types import Delta, Event, Finish, Request

MOST_TEMPERATURE = 0.3  # above it two answers to one question differ too often to stand for each other
MOST_CHARS = 2000  # of a question: longer ones carry a document, and a document is rarely asked about twice in other words

_TIMELY = re.compile(
    r"\b(?:now|nowadays|today|tonight|tomorrow|yesterday|currently|current(?!\s+(?:in|through|flow|of|and|is)\b)|latest|newest|recent(?:ly)?|upcoming|breaking|live\s+(?:scores?|stream|updates?|results?)"
    r"|(?:this|last|next|past|coming)\s+(?:second|minute|hour|morning|afternoon|evening|night|day|week|weekend|month|quarter|year|season)"
    r"|at\s+the\s+moment|right\s+away|so\s+far|as\s+of|up\s+to\s+date|these\s+days|ago"
    r"|weather|forecast|temperature\s+(?:in|outside)|news|headlines?|(?:the|final|match|game)\s+scores?|standings"
    r"|(?:stock|share|bitcoin|crypto|gold|oil|gas|fuel|house|ticket)\s+prices?|price\s+of|exchange\s+rates?|interest\s+rates?"
    r"|what\s+(?:time|day|date|year|month)\s+is|what\s+is\s+the\s+(?:time|date|day)|how\s+old\s+is|opening\s+hours|is\s+\S+\s+(?:open|closed|down|still)"
    r"|still|yet)\b",
    re.IGNORECASE,
)
# "I" alone is everyone ("how do I sort a list"); what one has or is oneself is not.
_PERSONAL = re.compile(
    r"\b(?:my|mine|our|ours|myself|ourselves"
    r"|me\s+and|and\s+(?:i|me)|(?:i|we)\s*(?:am|'m|’m|was|were|are|have|'ve|’ve|had|live|work|got|bought|feel|weigh|earn|born|told|said|asked|sent)"
    r"|who\s+am\s+i|about\s+me|near\s+me|for\s+me|remind\s+me)\b",
    re.IGNORECASE,
)
_CREATIVE = re.compile(
    r"\b(?:random(?:ly|ise|ize)?|(?:give|tell|show|write|suggest|make|find)\s+(?:me\s+|us\s+)?(?:another|some\s+more|more|a\s+different)|again|surprise"
    r"|(?:write|compose|tell|make\s+up|sing|give|create|draft)\b.{0,40}\b(?:jokes?|poems?|poetry|haikus?|limericks?|lyrics?|songs?|story|stories|tales?|essay|slogans?)"
    r"|brainstorm|come\s+up\s+with|make\s+up|imagine|roll\s+(?:a|the)\s+dic?e|flip\s+a\s+coin|uuid|shuffle"
    r"|(?:generate|suggest|pick)\s+(?:me\s+)?(?:a|an|some)\s+\w*\s*(?:names?|passwords?|keys?|numbers?|ideas?))\b|^\W*another\b",
    re.IGNORECASE,
)
# What points back at an earlier turn, or at something that was not sent.
_POINTING = re.compile(
    r"^\W*(?:and|but|so|then|also|ok(?:ay)?|yes|no|sure|thanks?|thank\s+you|continue|go\s+on|what\s+about|how\s+about|what\s+else)\b(?!.{60})|^\W*(?:why(?:\s+not)?|how(?:\s+so)?|what|when|where|who)\W*$"
    r"|\b(?:above|previous(?:ly)?|earlier|aforementioned|you\s+(?:said|mentioned|just|told|wrote)|(?:the|your)\s+last\s+(?:answer|message|one)"
    r"|(?:rewrite|translate|summari[sz]e|shorten|explain|fix|correct|rephrase)\s+(?:it|this|that|these|those|them))\b",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"^\W*(?:(?:i['’]?m|i\s+am)\s+(?:very\s+|really\s+|so\s+)?(?:sorry|afraid|unable|not\s+(?:able|sure|allowed))|sorry\b|i\s+apologi[sz]e|unfortunately"
    r"|i\s+(?:can(?:no|['’])?t|could\s+not|couldn['’]t|will\s+not|won['’]t|do\s+not|don['’]t)\s+(?:\w+\s+){0,2}"
    r"(?:help|assist|answer|provide|do|know|have|comply|share|discuss|give|access|fulfil|create|write)|as\s+an?\s+(?:ai|language\s+model))",
    re.IGNORECASE,
)
_ASKS_BACK = re.compile(
    r"(?:could|can|would)\s+you\s+(?:please\s+)?(?:clarify|provide|specify|tell\s+me|share)[^.?!]*\?\s*$", re.IGNORECASE
)


def why_unstorable(request: Request, question: str) -> str | None:
    """Why this request's answer must not answer others. `question` is the text that is compared: the last user's turn."""
    return _shape(request) or unstorable_text(question)


def why_unfit(events: Sequence[Event]) -> str | None:
    """Why this answer must not be stored: cut short, failed, with a call of a tool, empty, or a refusal."""
    finish = events[-1] if events else None
    if not isinstance(finish, Finish) or finish.reason != "stop" or finish.failure is not None:
        return "the answer did not end by itself"
    deltas = [event for event in events if isinstance(event, Delta)]
    if any(delta.tool_calls for delta in deltas):
        return "the answer called a tool"
    text = "".join(delta.text for delta in deltas).strip()
    if not text:
        return "the answer is empty"
    if _REFUSED.match(text):
        return "the answer is a refusal"
    if _ASKS_BACK.search(text[-300:]):
        return "the answer asks back"
    return None


def _shape(request: Request) -> str | None:
    """What of the request itself, its words aside, makes the answer its own."""
    sampling = request.sampling
    if request.messages is None:
        return "not a chat"
    if request.messages[-1].role != "user":
        return "the last turn is not the user's"
    if any(message.role == "tool" or message.tool_calls for message in request.messages):
        return "a tool was called"
    if request.tools and (request.tool_choice is None or request.tool_choice.mode != "none"):
        return "tools may be called"
    if sampling.temperature > MOST_TEMPERATURE and request.options.cache is None:  # who names the cache takes an answer of any draw
        return f"temperature {sampling.temperature:g} is above {MOST_TEMPERATURE}"
    if request.n > 1 or request.options.samples > 1:
        return "several answers are asked for"
    if sampling.logprobs is not None or sampling.prompt_logprobs is not None:
        return "log-probabilities are asked for"
    if request.echo or request.continue_final_message:
        return "the answer goes on from the question"
    return None


def unstorable_text(question: str) -> str | None:
    """The part of `why_unstorable` that looks at words alone."""
    if not question.strip():
        return "no question"
    if len(question) > MOST_CHARS:
        return f"{len(question)} characters are more than {MOST_CHARS}"
    for why, pattern in (("time-sensitive", _TIMELY), ("personal", _PERSONAL), ("meant to differ", _CREATIVE), ("points back", _POINTING)):
        if (match := pattern.search(question)) is not None:
            return f"{why}: {' '.join(match.group().lower().split())}"
    return None
