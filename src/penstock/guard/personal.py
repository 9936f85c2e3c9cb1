"""Recognisers of what names, reaches or bills a person: each is a shape, then a check that chance seldom passes.

Presidio's recognisers have the same shapes for most of these. They are not used for them, because importing Presidio takes
seconds and loads torch where it is installed, its e-mail check asks the network for a list of domains, and its phone numbers
miss a third of those that people write; `guard.national` uses it for the kinds that only it has.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator

from penstock.core.errors import missing_extra
from penstock.guard.spans import BEFORE, UNSPACED, Found, Pattern, Scanner, compiled, touches, windows

Find = Callable[[str], Iterable[Found]]

# Who issues cards, by first digits, and the lengths that each has. Others count only where the text speaks of a card.
_ISSUERS = re.compile(
    r"4(?:\d{15}|\d{18})|(?:5[1-5]|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d+|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|"
    r"(?:6011|64[4-9]\d|65\d\d|62\d\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12}|(?:2131|1800)\d{11}|220[0-4]\d{12}"
)
_CARD_WORDS = re.compile(r"(?i)card|carte|karte|tarjeta|visa|master|maestro|amex|debit|credit|pay|charge|\bcc\b|\bpan\b")
_SSN_WORDS = re.compile(r"(?i)\bssn\b|social.?security|\bsocial\b.{0,12}$")
_VERSION_WORDS = re.compile(r"(?i)(?:\bv(?:er(?:sion)?)?\.?|version|release|section|chapter|§|\bbuild)\s*(?:is|:|=|#)?\s*$|\w/$")
_BORN = r"(?i)\b(?:born|birth(?:day|date)?|d\.?o\.?b\.?|geboren|geburtsdatum|née?|nacid[oa]|nacimiento|nat[oa])\b"
_SPEAKS_OF_BIRTH = re.compile(_BORN)
_DATE = (
    r"(?:\d{1,2}[/.\-]\d{1,2}[/.\-](?:19|20)?\d{2}|(?:19|20)\d{2}[/.\-]\d{1,2}[/.\-]\d{1,2}|"
    r"\d{1,2}(?:st|nd|rd|th|\.)?(?: of)? [A-Z][a-zé]{2,9}\.?,? (?:19|20)\d{2}|[A-Z][a-zé]{2,9}\.? \d{1,2}(?:st|nd|rd|th)?,? (?:19|20)\d{2})"
)


def _card(found: str, before: str) -> bool:
    digits = found.replace(" ", "").replace("-", "")
    if not 12 <= len(digits) <= 19:
        return False
    if not (_ISSUERS.fullmatch(digits) or _CARD_WORDS.search(before)):
        return False
    if len(set(digits)) < 2 or len(set(re.sub(r"\d", "", found))) > 1:  # zeros; or spaces and dashes mixed
        return False
    from stdnum import luhn

    return bool(luhn.is_valid(digits))


def _iban(found: str, before: str) -> bool:
    if len(found) < 15 or not (found[:2].isalpha() and found[2:4].isdigit()):
        return False
    from stdnum import iban

    return bool(iban.is_valid(found, check_country=False))


def _ssn(found: str, before: str) -> bool:
    from stdnum.us import ssn

    if not re.search(r"\D", found) and not _SSN_WORDS.search(before):
        return False
    return bool(ssn.is_valid(re.sub(r"[ .]", "-", found)))


def _ip(found: str, before: str) -> bool:
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    if address.version == 6 and (not re.search(r"\d", found) or len(found) < 6 or found.count(":") < 2):
        return False  # two names with a scope between them, as in C++
    netmask = found.startswith("255.")
    return not (address.is_loopback or address.is_unspecified or netmask or _VERSION_WORDS.search(before))


def _coin(found: str, before: str) -> bool:
    if found.startswith("0x"):
        return len(set(found[2:].lower())) > 4
    from stdnum import bitcoin

    return bool(bitcoin.is_valid(found))


def _email(found: str, before: str) -> bool:
    name, _, domain = found.rpartition("@")
    return (
        len(name) <= 64
        and name.lower() != "git"
        and ".." not in domain
        and not domain.startswith((".", "-"))
        and bool(re.search(r"\w", name))
    )


def _credentials(found: str, before: str) -> bool:
    password = found.partition(":")[2]
    return bool(password) and not password.startswith(("$", "{", "<", "%"))


PATTERNS = (
    Pattern(kind="email", regex=r"[\p{Latin}\p{Greek}\p{Cyrillic}0-9._%+'\-]+@[\p{Latin}0-9.\-]+\.\p{Latin}{2,24}",
            check=_email, score=0.9),
    Pattern(kind="ssn", regex=r"\d{3}(?:-\d{2}-|\.\d{2}\.| \d{2} |\d{2})\d{4}", check=_ssn, edges="-", score=0.95),
    Pattern(kind="ip", regex=r"\d{1,3}(?:\.\d{1,3}){3}", check=_ip, score=0.95, edges="."),
    Pattern(kind="ip", regex=r"(?i)(?:[0-9A-F]{0,4}:){2,7}(?:[0-9A-F]{1,4}|\d{1,3}(?:\.\d{1,3}){3})?", check=_ip, score=0.9, edges=":."),
    Pattern(kind="mac", regex=r"(?i)[0-9A-F]{2}(?:(?::[0-9A-F]{2}){5}|(?:-[0-9A-F]{2}){5})", edges=":-"),
    Pattern(kind="crypto", regex=r"(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|bc1[02-9ac-hj-np-z]{11,71}|0x[0-9a-fA-F]{40})", check=_coin),
    Pattern(kind="credentials",
            regex=rf"(?i)\b[a-z][a-z0-9+.\-]{{1,15}}://([^\s/:@'\"<>,;{UNSPACED}]{{1,64}}:[^\s/@'\"<>,;{UNSPACED}]{{1,128}})@",
            check=_credentials),
    Pattern(kind="birth_date", regex=_BORN + r".{0,24}?\b(" + _DATE + r")", score=0.8),
)  # fmt: skip


class Grouped:
    """Finds numbers that people write in groups, where the words or digits beside them could be taken for one group more."""

    def __init__(self, kind: str, regex: str, gaps: str, check: Callable[[str, str], bool]) -> None:
        self._kind, self._gaps, self._check = kind, gaps, check
        self._regex = compiled(regex)

    def __call__(self, text: str) -> Iterator[Found]:
        done = 0
        for match in self._regex.finditer(text):
            first, last = match.span()
            for start, end in windows(text, first, last, self._gaps):
                if start < done or touches(text, start, end):
                    continue
                if self._check(text[start:end], text[max(0, start - BEFORE) : start]):
                    yield Found(start, end, self._kind)
                    done = end


def date_begins(text: str, start: int) -> int | None:
    """Where a date of birth begins that may still be growing at the end of `text`; looked for from `start` on."""
    born = max((match.end() for match in _SPEAKS_OF_BIRTH.finditer(text, start)), default=None)
    if born is None or len(text) - born > 24 + 20:  # words between, and the longest date
        return None
    date = re.search(r"\d|[A-Z][a-zé]", text[born:])
    return None if date is None else born + date.start()


def finders(kinds: Iterable[str]) -> list[Find]:
    """One recogniser for each pattern of `kinds`. Raises `MissingExtra`."""
    try:
        import stdnum  # noqa: F401
    except ImportError as error:
        raise missing_extra("checking cards and accounts", "guard") from error
    wanted = set(kinds)
    found: list[Find] = [Scanner(pattern) for pattern in PATTERNS if pattern.kind in wanted]
    if "card" in wanted:
        found.append(Grouped("card", r"\d(?:[ \-]?\d){11,}", "[ -]", _card))
    if "iban" in wanted:
        found.append(Grouped("iban", r"(?i)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?", " ", _iban))
    return found
