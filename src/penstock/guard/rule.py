"""What a guardrail is. A rule looks at one text and says what it objects to; what is done about that, the settings say.

A rule of your own is an entry point of the group `penstock.rules`: its name is the `kind` that the settings ask for, its value a
`MakeRule`, called once at the start. A rule

- finds, and never acts: `RuleGuard` refuses, redacts, keeps score, measures, and puts originals back;
- judges a text by itself: what it says of an input depends on nothing but the `Text`, for it is remembered;
- never blocks the event loop for more than a millisecond: what takes longer goes through `asyncio.to_thread`;
- never repeats in `why` what it objects to: that is written into logs and the ledger, and told to clients.

`tests/contract/test_rule.py` has what each rule owes; run it over your own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from penstock.core.config import RuleSettings
from penstock.core.types import Principal, Request, Role
from penstock.embed import TextVectors

Where = Literal["input", "tools", "output"]  # what was asked, what tools returned, what is answered
Part = Literal["text", "reasoning", "arguments"]  # of a message; arguments are those of a tool call, JSON as it was written
Unit = Literal["span", "sentence", "whole"]
EVERYONE: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")


class Text(Struct, frozen=True, kw_only=True):
    """A text to be judged. No span may begin before `start`: what is there was sent already and is only shown as context."""

    text: str
    where: Where
    role: Role = "user"  # who speaks; of an output: the assistant
    part: Part = "text"
    start: int = 0  # characters
    after: str = ""  # the kind of what this rule had cut out right before `start`, which may go on from there
    system: str = ""  # of a user's prompt: what the operator told the model before it
    decoded_by: tuple[str, ...] = ()  # how it was hidden in what was really written, such as ("base64",)
    principal: Principal = Principal()
    request: Request | None = None  # of an output: what is being answered, as the model got it


class Span(Struct, frozen=True):
    """A stretch of a text, in characters, the end exclusive. `kind` names its placeholder: "EMAIL" becomes `[EMAIL_1]`.

    `goes_on`: it begins at `Text.start` and is the rest of what was cut out there, so it gets no placeholder of its own.
    """

    start: int
    end: int
    kind: str
    goes_on: bool = False


class Opinion(Struct, frozen=True, kw_only=True):
    """What a rule says of a text. No `why`: it objects to nothing.

    `score` may be told in any case. `spans` are what would have to go, in order and apart; a rule that objects without any
    objects to the whole text.
    """

    why: str = ""
    score: float | None = None
    spans: tuple[Span, ...] = ()


class Reads(Struct, frozen=True, kw_only=True):
    """What a rule reads, and how much of it at once.

    `unit` says how a stream is held back: "span" until no match can still be growing; "sentence" until each sentence is
    whole, and that is all the rule then sees; "whole" until the end of the answer. Inputs are always seen whole.

    `reach` (of "span"): whether a span is found, and where it ends, depends on no more than so many characters before its
    first and so many from its first on. None: there is no such bound.
    """

    where: tuple[Where, ...]  # where the settings name no other place
    roles: tuple[Role, ...] = EVERYONE  # whose texts, of the input
    parts: tuple[Part, ...] = ("text", "reasoning", "arguments")
    unit: Unit = "span"
    reach: int | None = None
    decodes: bool = True  # also judge what is hidden in an input: homoglyphs, base64 and the like
    cuts: bool = True  # it says where, so that "redact" is possible


class Rule(Protocol):
    """One guardrail."""

    @property
    def reads(self) -> Reads:
        """Always the same."""

    async def judge(self, text: Text) -> Opinion:
        """What is wrong with `text`. May raise whatever it likes: it has failed then, and the settings say what follows."""


@runtime_checkable
class Foreseeing(Protocol):
    """A rule of the unit "span" that holds back less of a stream than its `reach`, because it knows how matches begin."""

    def pending(self, text: str, start: int) -> int:
        """Where the first match that could still change with more text begins, from `start` on; `len(text)`: there is none.

        A whole match counts as well while more text could lengthen or undo it.
        """


@runtime_checkable
class Selective(Protocol):
    """A rule that concerns the answers to some requests only; others are not held back for it."""

    def concerns(self, request: Request) -> bool:
        """Whether it has anything to say of an answer to `request`."""


class Means(Struct, frozen=True, kw_only=True):
    """What rules may use. `vectors` opens the embedding that cache, router and guard share, when it is called first."""

    vectors: Callable[[], TextVectors]


MakeRule = Callable[[RuleSettings, Means], Rule]  # raises ConfigError, MissingExtra
