"""Taking stretches out of texts: overlapping finds become one, and each gets its placeholder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from penstock.core.config import Action
from penstock.guard.enforced import Enforced
from penstock.guard.rule import Span

_NAME = re.compile(r"\[\w+\]")  # what `placeholder` makes


class Cut(Struct, frozen=True, kw_only=True):
    """A stretch, in characters, that does not go out as it is. `by` None: a placeholder, which `back` replaces."""

    start: int
    end: int
    kind: str = ""
    action: Action = "redact"
    by: Enforced | None = None
    goes_on: bool = False  # the rest of what was cut out before it: it has a placeholder already
    back: str = ""


class Patch(Struct, frozen=True, kw_only=True):
    """Cuts that overlap, as one. What a rule cut is not put back."""

    start: int
    end: int
    cuts: tuple[Cut, ...]

    @property
    def refusing(self) -> Cut | None:
        """The first of its cuts that refuses."""
        return next((cut for cut in self.cuts if cut.action == "refuse"), None)

    @property
    def cut(self) -> Cut:
        """The one whose name it bears: the longest of the rules'."""
        return max(self.cuts, key=lambda cut: (cut.by is not None, cut.end - cut.start))


def patches(cuts: Iterable[Cut]) -> list[Patch]:
    """In the order of the text, none touching another's characters."""
    found: list[Patch] = []
    for cut in sorted(cuts, key=lambda cut: (cut.start, -cut.end)):
        if found and cut.start < found[-1].end:
            last = found[-1]
            found[-1] = Patch(start=last.start, end=max(last.end, cut.end), cuts=(*last.cuts, cut))
        else:
            found.append(Patch(start=cut.start, end=cut.end, cuts=(cut,)))
    return found


def cuts_of(spans: Iterable[Span], by: Enforced, action: Action) -> list[Cut]:
    """What follows from the spans that a rule found."""
    return [Cut(start=span.start, end=span.end, kind=span.kind, action=action, by=by, goes_on=span.goes_on) for span in spans]


class Placeholders:
    """The placeholders of one request: `[EMAIL_1]`, the same for the same value. None that the request itself contains is given."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._taken = {name for text in texts for name in _NAME.findall(text)}
        self._numbers: dict[str, int] = {}  # the last of each kind
        self._given: dict[str, str] = {}
        self.originals: dict[str, str] = {}

    def redact(self, text: str, cuts: Iterable[Cut], *, escaped: bool) -> str:
        """The text with a placeholder for each stretch. `escaped`: it is JSON, and what stands in it is not as it is meant."""
        at, pieces = 0, []
        for patch in patches(cuts):
            value = text[patch.start : patch.end]
            pieces += [text[at : patch.start], self._of(patch.cut.kind, _unquoted(value) if escaped else value)]
            at = patch.end
        return "".join((*pieces, text[at:]))

    def _of(self, kind: str, value: str) -> str:
        if value not in self._given:
            self._given[value] = name = self._free(kind)
            self.originals[name] = value
        return self._given[value]

    def _free(self, kind: str) -> str:
        while True:
            self._numbers[kind] = number = self._numbers.get(kind, 0) + 1
            name = placeholder(kind, number)
            if name not in self._taken:
                return name


class Restorer:
    """Finds the placeholders of one request in what is answered, however it is cut."""

    def __init__(self, originals: dict[str, str]) -> None:
        self._originals = originals
        self._beginnings = frozenset(name[:end] for name in originals for end in range(1, len(name)))
        self._longest = max(map(len, originals))

    def cuts(self, text: str, start: int, *, escaped: bool) -> list[Cut]:
        """The placeholders from `start` on. `escaped`: they stand in JSON, where the originals need escaping."""
        return [
            Cut(start=match.start(), end=match.end(), back=_quoted(self._originals[match[0]]) if escaped else self._originals[match[0]])
            for match in _NAME.finditer(text, start)
            if match[0] in self._originals
        ]

    def pending(self, text: str, start: int) -> int:
        """Where the end of the text may be the beginning of a placeholder."""
        at = text.rfind("[", max(start, len(text) - self._longest + 1))
        return at if at >= 0 and text[at:] in self._beginnings else len(text)


def placeholder(kind: str, number: int | None = None) -> str:
    """What stands for a value of this kind; without a number it is never put back."""
    name = re.sub(r"\W+", "_", kind).strip("_").upper() or "REDACTED"
    return f"[{name}]" if number is None else f"[{name}_{number}]"


def _unquoted(text: str) -> str:
    """What a part of a JSON string means; a part that is more or less than that stays as it is."""
    try:
        return str(json.loads(f'"{text}"')) if "\\" in text else text
    except ValueError:
        return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
