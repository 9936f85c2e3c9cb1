"""The rule `pii`: personal data, keys and secrets, found by `finder.spans(text)` and put out of the way by placeholders.

Every kind is a shape that RE2 finds in linear time and a check that chance seldom passes: a check digit (cards, accounts, bitcoin
addresses), a number in use (telephones), a prefix (keys), words beside it (passwords, dates of birth). Names and addresses of
people are not covered: they need a model of language, and this rule loads none.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError, closest
from penstock.guard import personal, secrets
from penstock.guard.phone import AFTER, REGIONS, Phones
from penstock.guard.rule import Means, Opinion, Reads, Span, Text
from penstock.guard.spans import BEFORE, LONGEST_NUMBER, Found, resolve

PERSONAL = ("email", "phone", "card", "iban", "ssn", "ip", "mac", "crypto", "credentials", "birth_date")
SECRETS = tuple(dict.fromkeys(pattern.kind for pattern in secrets.PATTERNS))
KINDS = (*PERSONAL, *SECRETS)
GROUPS = {"personal": PERSONAL, "secrets": SECRETS}
PRESIDIO_NAMES = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban", "US_SSN": "ssn", "IP_ADDRESS": "ip",
    "MAC_ADDRESS": "mac", "CRYPTO": "crypto",
}  # fmt: skip
QUICK = 8000  # characters that are searched in about a millisecond

MOST_HELD = 160  # characters: an address and its domain; what is longer is known by its beginning
LONG_SECRET = 96  # characters after which more of the same changes nothing

_ENDS_TOKEN = frozenset('"<>,;`')  # in nothing that is looked for
_NUMBER = re.compile(r"[+(]{0,2}\d[\d .\-/()+]*")
_IBAN_SO_FAR = re.compile(r"(?i)(?<![a-z0-9])[a-z]{2}\d{2}(?: [a-z0-9]{4})*(?: [a-z0-9]{0,3})? ?$")
_ARMOUR = re.compile(r"\s?-----(?:BEGIN|END)[A-Z0-9 ]*-{0,5}$")
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_ENDS = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_REST = re.compile(r"(?:\.?[A-Za-z0-9_~+/=\-]+)*")


class Finder:
    """Finds the given kinds of personal data and secrets. Raises `ConfigError` for one that is unknown, `MissingExtra`.

    `kinds`: of `KINDS`, groups of them ("personal", "secrets"), or Presidio's names; none: all of `KINDS`. `regions`: countries
    (ISO 3166) whose telephone numbers may be written without their country; none: `phone.REGIONS`.
    """

    def __init__(self, kinds: Iterable[str] = (), regions: Iterable[str] = ()) -> None:
        self.kinds = _kinds(kinds)
        national = [kind for kind in self.kinds if kind.isupper()]
        self._find: list[personal.Find] = [*personal.finders(self.kinds), *secrets.finders(self.kinds)]
        if "phone" in self.kinds:
            self._find.append(Phones(tuple(regions) or REGIONS))
        if national:
            from penstock.guard.national import Presidio

            self._find.append(Presidio(national))
        self._waits = 2 * LONGEST_NUMBER if national else 0
        self._latest: tuple[str, tuple[Found, ...]] = ("", ())

    def spans(self, text: str) -> tuple[Found, ...]:
        """All that is found, in order and without overlaps."""
        latest, found = self._latest
        if text != latest:
            found = resolve(found for find in self._find for found in find(text))
            self._latest = text, found
        return found

    def could_grow_from(self, text: str, start: int = 0) -> int:
        """Where the first stretch begins, from `start` on, that more text could make a find, lengthen or undo; else `len(text)`."""
        if (known := self._known_by_its_beginning(text)) is not None:
            return max(start, known)
        tail = max(start, len(text) - LONGEST_NUMBER - BEFORE)
        growing = [_token(text), len(text) - min(self._waits, len(text))]
        growing += [number.start() for number in _NUMBER.finditer(text, _number_start(text, tail)) if _open(text, number)]
        growing += [match.start() for ending in (_IBAN_SO_FAR, _ARMOUR) if (match := ending.search(text, tail))]
        begins = _KEY_BEGINS.finditer(text, max(start, len(text) - MOST_HELD))
        growing += [match.start() for match in begins if not _KEY_ENDS.search(text, match.end())]
        if "birth_date" in self.kinds and (born := personal.date_begins(text, tail)) is not None:
            growing.append(born)
        free = min(growing)
        free = min((found.start for found in self.spans(text) if found.start < free < found.end), default=free)
        return max(start, free)

    def _known_by_its_beginning(self, text: str) -> int | None:
        """The end of a secret that is so long that more of it, which `text` may well end in, changes nothing."""
        spans = self.spans(text)
        if not spans or spans[-1].kind not in SECRETS or spans[-1].end - spans[-1].start < LONG_SECRET:
            return None
        found = spans[-1]
        ends = found.end == len(text) or (found.kind == "private_key" and secrets.KEY_SO_FAR.match(text, found.end))
        return found.end if ends else None


class Pii:
    """A rule that objects to personal data and secrets."""

    reads = Reads(where=("input", "tools", "output"), unit="span", reach=MOST_HELD)

    def __init__(self, finder: Finder) -> None:
        self.finder = finder

    async def judge(self, text: Text) -> Opinion:
        find = self.finder.spans
        found = find(text.text) if len(text.text) <= QUICK else await asyncio.to_thread(find, text.text)
        rest = _rest(text)
        done = rest[-1].end if rest else text.start
        found = tuple(span for span in found if span.start >= done)
        if not found and not rest:
            return Opinion()
        kinds = sorted({kind.replace("_", " ").lower() for kind in (*(span.kind for span in rest), *(span.kind for span in found))})
        spans = (*rest, *(Span(span.start, span.end, span.kind.upper()) for span in found))
        return Opinion(why=f"it has {', '.join(kinds)}", score=max((span.score for span in found), default=1.0), spans=spans)

    def pending(self, text: str, start: int) -> int:
        return self.finder.could_grow_from(text, start)


def pii(settings: RuleSettings, means: Means) -> Pii:
    """The rule `kind = "pii"`. Raises `ConfigError` when `patterns` names what cannot be found, `MissingExtra`."""
    rule = Pii(Finder(settings.patterns, settings.regions))
    rule.finder.spans("warm up: 020 7946 0958")  # loads what the first search would otherwise wait for
    return rule


def _kinds(names: Iterable[str]) -> tuple[str, ...]:
    kinds: list[str] = []
    for name in names:
        if name in GROUPS:
            kinds += GROUPS[name]
        elif name in KINDS or name in PRESIDIO_NAMES:
            kinds.append(PRESIDIO_NAMES.get(name, name))
        elif name.isupper() and name not in {"PERSON", "LOCATION", "NRP", "ORGANIZATION", "DATE_TIME", "URL"}:
            kinds.append(name)
        else:
            near = closest(name, (*KINDS, *GROUPS))
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join((*GROUPS, *KINDS))}, and the names of Presidio's patterns"
            raise ConfigError(f"the rule 'pii' cannot find {name!r}", hint=hint)
    return tuple(dict.fromkeys(kinds)) or KINDS


def _rest(text: Text) -> tuple[Span, ...]:
    """What goes on of a secret that was cut out before all of it had come."""
    kind = text.after.lower()
    if kind not in SECRETS or (kind == "private_key" and secrets.KEY_ENDED.search(text.text[: text.start])):
        return ()
    rest = (secrets.REST_OF_KEY if kind == "private_key" else _REST).match(text.text, text.start)
    return (Span(text.start, rest.end(), text.after, goes_on=True),) if rest and rest.end() > text.start else ()


def _token(text: str) -> int:
    """Where the last run of characters begins that one word, address or key may be made of, or the last `MOST_HELD` of it."""
    begin, least = len(text), max(0, len(text) - MOST_HELD)
    while begin > least and not text[begin - 1].isspace() and text[begin - 1] not in _ENDS_TOKEN and text[begin - 1] < "\u2e80":
        begin -= 1
    return begin


def _number_start(text: str, start: int) -> int:
    """`start`, or where the number begins that it would cut in two."""
    while start > 0 and text[start - 1] in "0123456789 .-/()+":
        start -= 1
    return start


def _open(text: str, number: re.Match[str]) -> bool:
    """Whether a number touches the end of the text, or the words after it, which may say what it is, have not all come."""
    left = len(text) - number.end()
    return left == 0 or (left <= AFTER + 8 and sum(map(str.isdigit, number[0])) >= 7)
