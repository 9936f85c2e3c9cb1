"""What can be seen of a request without computing: how long it is, what it is about, what it wants.

Every pattern is a plain alternation over words or single characters, so that the time taken is linear in the text's length.
"""

from __future__ import annotations

import re

from msgspec import Struct

from penstock.core.types import Request

CHARS_PER_TOKEN = 4  # of English; what is taken for a token where none is counted
LOOKED_AT = 16_384  # characters of a text: its first and last half of them

_CODE = re.compile(
    r"```|\b(?:def|class|return|import|function|const|var|void|public|static|SELECT|printf|println|lambda|elif)\b.{0,80}[(){}:;=]"
    r"|#include\b|</\w{1,20}>|\b\w{1,40}\(\)|=>|==|!=|&&|\|\|"
)
_CODING = re.compile(
    r"\b(?:python|javascript|typescript|java|rust|golang|c\+\+|sql|regex|bash|html|css|api|code|function|script|program|compile|debug|"
    r"algorithm|refactor|unit tests?|stack trace|exception|docker|kubernetes)\b",
    re.IGNORECASE,
)
_MATHS = re.compile(
    r"\\(?:frac|sum|int|sqrt|alpha|beta|times|cdot|begin)\b|[∑∫√≤≥≠π∞∂]|\d\s*[-+*/^=×÷]\s*\d|\b[a-z]\s*[=^]\s*-?[\w(]|\$[^$\n]{1,80}\$|"
    r"\b(?:solve|equation|integral|derivative|probability|theorem|polynomial|matrix|prime|calculate|compute|percent|how many|how much|"
    r"sum of|product of|average|remainder|triangle|angle|radius|velocity|ratio)\b",
    re.IGNORECASE,
)
_REASONING = re.compile(
    r"\b(?:prove|proof|derive|step by step|step-by-step|think carefully|reason(?:ing)? through|show that|show your work|trade-?offs?|"
    r"root cause|puzzle|riddle|deduce|formally|rigorous(?:ly)?|counterexample|optimi[sz]e|strategy|diagnos(?:e|is)|"
    r"why (?:does|is|do|did) .{0,60}(?:fail|differ|not))\b",
    re.IGNORECASE,
)
_DEMANDING = re.compile(
    r"\b(?:analy[sz]e|analysis|compare|contrast|critique|evaluate|design|architect(?:ure)?|explain (?:why|how)|essay|report|review|"
    r"refactor|implement|plan|research|comprehensive|detailed|in depth|in detail|implications|legal|contract|medical|clinical)\b",
    re.IGNORECASE,
)
_PLAIN = re.compile(
    r"\b(?:hi|hello|hey|thanks|thank you|what is|who is|who was|when (?:is|was|did)|where is|define|translate|summari[sz]e|spell|rewrite|"
    r"rephrase|fix the grammar|list|name (?:a|the|three|five)|capital of|synonym|classify|extract)\b",
    re.IGNORECASE,
)
_STOP_WORDS = re.compile(
    r"\b(?:the|a|an|is|are|of|to|and|in|that|it|for|what|how|you|i|my|me|do|can|with|on|please|this|write)\b", re.IGNORECASE
)
_WORD = re.compile(r"[^\W\d_]+")


class Traits(Struct, frozen=True, kw_only=True):
    """What is seen. `code`, `maths` and the kinds of words are counts of marks in the text."""

    tokens: int  # of the text, about
    context_tokens: int  # of the whole prompt, about
    turns: int  # of the user
    code: int
    coding: int
    maths: int
    reasoning: int
    demanding: int
    plain: int
    foreign: bool  # probably not English
    tools: int  # that the model may call
    formatted: bool  # a JSON schema, or the like, has to be kept to


def text_of(request: Request) -> str:
    """The prompt, or the last turn of the user; "" where only token ids are known."""
    if request.messages is None:
        return request.prompt or ""
    return next((message.content for message in reversed(request.messages) if message.role == "user"), "")


def prompt_tokens(request: Request) -> int:
    """Of the whole prompt, about."""
    if request.prompt_token_ids is not None:
        return len(request.prompt_token_ids)
    chars = len(request.prompt or "") + sum(len(message.content) for message in request.messages or ())
    return -(-chars // CHARS_PER_TOKEN)


def traits_of(request: Request, text: str) -> Traits:
    """`text` is `text_of(request)`."""
    seen = text if len(text) <= LOOKED_AT else f"{text[: LOOKED_AT // 2]}\n{text[-LOOKED_AT // 2 :]}"
    context = prompt_tokens(request)
    return Traits(
        tokens=-(-len(text) // CHARS_PER_TOKEN) if text else context,
        context_tokens=context,
        turns=sum(message.role == "user" for message in request.messages or ()) or 1,
        code=_count(_CODE, seen),
        coding=_count(_CODING, seen),
        maths=_count(_MATHS, seen),
        reasoning=_count(_REASONING, seen),
        demanding=_count(_DEMANDING, seen),
        plain=_count(_PLAIN, seen),
        foreign=_foreign(seen),
        tools=len(request.tools),
        formatted=request.response_format is not None and request.response_format.get("type") != "text",
    )


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))


def _foreign(text: str) -> bool:
    """Most letters are no Latin ones, or a text of some length has hardly an English function word."""
    words = _WORD.findall(text)
    letters = sum(map(len, words))
    beyond = sum(sum(char > "\u024f" for char in word) for word in words)
    if letters and beyond > letters / 3:
        return True
    return len(words) >= 8 and _count(_STOP_WORDS, text) < len(words) / 12
