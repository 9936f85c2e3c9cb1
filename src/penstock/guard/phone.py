"""Telephone numbers, in the many ways that people write them.

A stretch of digits is a number when it is one that `phonenumbers` (Google's libphonenumber) knows, or has the shape of one that
nothing else has, or when the text beside it speaks of calling. The library's own search finds about two thirds of what people
write, needs to be told the country, and takes 2 ms for 500 characters; here it only judges what a regular expression found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from penstock.core.errors import ConfigError, missing_extra
from penstock.guard.spans import Found, compiled, joins, windows

REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "CH", "AT", "SE", "PL", "AU", "IN", "BR", "MX", "ZA", "JP")
AFTER = 12  # characters after a number that may name it, as in "0171 5550123 (office)"
_LEAST, _MOST = 7, 15  # digits; E.164 allows 15

_CANDIDATE = r"(?:\+|\(\+?)?\d(?:[ .\-/()]{0,2}\d){5,}"
_SENTENCE_ENDS = re.compile(r"\w{4}[.!?]\s")
_EXTENSION = re.compile(r"(?i)(?: ?x ?| ?ext\.? ?| ?# ?)\d{1,6}(?!\w)")
_NORTH_AMERICAN = re.compile(r"(?:(?:\+|00)?1[ .\-]?)?(?:\(\d{3}\) ?\d{3}[ .\-]\d{4}|\d{3}([.\-])\d{3}\1\d{4})")
_DATE = re.compile(
    r"(?:\d{1,2}[/.\-]\d{1,2}[/.\-]\d{2,4}|(?:19|20)\d\d[/.\-]\d{1,2}[/.\-]\d{1,2}|(?:19|20)\d\d[/\-](?:19|20)\d\d)(?:[ T]\d{1,2})?"
)
_GOES_ON = re.compile(r"[.,:/\-_]\d|[%°]|\d")  # a decimal, a time, a path
_IP = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_SPEAKS_FOR = re.compile(
    r"(?i)\b(?:(?:tele)?phone|tel|call(?:ing|ed)?|cell(?:ular|phone)?|mobile|mob|fax|desk|registered|office|dial|ring|text(?:ed)?|sms|messages?|whatsapp|"
    r"signal|telegram|answering|reach(?:ed)?|contact|hotline|helpline|landline|voicemail|pager|(?:my|your|her|his|our|their) numbers?|"
    r"telefon\w*|handy|mobil\w*|rufnummer|anrufen|téléphone\w*|portable|appel\w*|joindre|teléfono|móvil|ll[aá]m\w+|cellulare|chiam\w+|"
    r"telefone|celular|lig(?:ue|ar)|telefoon|bel(?:len)?)\b|тел|звон|电话|手机|電話|携帯|전화"
)
_SPEAKS_AGAINST = re.compile(
    r"(?i)\b(?:zip(?: code)?|post(?:al|code| code)|plz|licen[cs]e|order|invoice|account|acct|card|ssn|social security|isbn\S*|issn|sku|"
    r"serial|tracking|ticket|case|ref(?:erence)?|version|id|ids|born|birth|flight|part|model|item|product|doi|rfc|cve|port|page|pages|"
    r"total|sum|equals?|timestamp|iban|bic|customer|policy|patent|gene|coordinates|latitude|longitude|hash|commit|uuid|error)\b|[$€£¥=*%]"
)
_WORDY = re.compile(r"[^\W\d_]|[$€£¥=*%]")  # no word or sign above has none of these
_SPEAKS_AFTER = re.compile(r"(?i)^[\s\-(,:]{0,3}(?:office|fax|mobile|cell|home|work|phone|tel|desk|landline|handy|mobil|portable|móvil)\b")


class Phones:
    """Finds telephone numbers. Those written without a country are tried as those of `regions` (ISO 3166). Raises `MissingExtra`."""

    def __init__(self, regions: Iterable[str] = REGIONS) -> None:
        try:
            import phonenumbers
        except ImportError as error:
            raise missing_extra("finding telephone numbers", "guard") from error
        self._phonenumbers = phonenumbers
        self._regions = tuple(regions)
        if unknown := next((region for region in self._regions if region not in phonenumbers.SUPPORTED_REGIONS), None):
            raise ConfigError(f"the rule 'pii' knows no region {unknown!r}", hint='countries are written as in ISO 3166, such as "DE"')
        self._regex = compiled(_CANDIDATE)

    def __call__(self, text: str) -> Iterator[Found]:
        for match in self._regex.finditer(text):
            yield from self._within(text, *match.span())

    def _within(self, text: str, start: int, end: int) -> Iterator[Found]:
        """The longest number that begins with the first group of digits, else with the second, and so on."""
        done = start
        for first, last in windows(text, start, end, r"[ /]+"):
            if first >= done and _LEAST <= last - first <= 2 * _MOST:
                whole = last + len(extension[0]) if (extension := _EXTENSION.match(text, last)) else last
                if score := self._score(text, first, last, whole):
                    yield Found(first, whole, "phone", score)
                    done = whole

    def _score(self, text: str, start: int, end: int, whole: int) -> float:
        """How sure it is that `text[start:end]` is a number, which with its extension ends at `whole`; 0: it is none."""
        before, written = text[max(0, start - 1) : start], text[start:end]
        digits = sum(map(str.isdigit, written))
        if not _LEAST <= digits <= _MOST:
            return 0.0
        if joins(before) or (before and before in "-_./#$€£^*=") or joins(text[whole : whole + 1]) or _GOES_ON.match(text, whole):
            return 0.0
        if _DATE.fullmatch(written) or _IP.fullmatch(written) or len(set(written)) < 4:
            return 0.0
        verdict = _context(text, start, whole)
        if verdict is not None:
            return 0.85 if verdict else 0.0
        if whole > end or _NORTH_AMERICAN.fullmatch(written):
            return 0.8
        is_part = bool(re.search(r"\d ?$", text[max(0, start - 2) : start])) and not written.startswith("+")
        return 0.75 if not is_part and self._known(written, digits) else 0.0

    def _known(self, written: str, digits: int) -> bool:
        """Whether it is a number in use, and written as one: with its country, or with a leading zero and in groups."""
        if written.startswith(("+", "(+")) or (written.startswith("00") and digits > 9):
            return self._valid("+" + re.sub(r"^\(?(?:\+|00)", "", written), None)
        grouped = len(re.findall(r"\d+", written)) > 1
        return (
            grouped
            and digits >= 9
            and written.lstrip("(").startswith("0")
            and any(self._valid(written, region) for region in self._regions)
        )

    def _valid(self, written: str, region: str | None) -> bool:
        try:
            number = self._phonenumbers.parse(written, region)
        except self._phonenumbers.NumberParseException:
            return False
        return bool(self._phonenumbers.is_valid_number(number))


def _context(text: str, start: int, end: int) -> bool | None:
    """Whether the words beside a number speak for its being a telephone's, or against it; the nearest counts. None: they say nothing."""
    if _SPEAKS_AFTER.match(text[end : end + AFTER]):
        return True
    before = text[max(0, start - 40) : start]
    if not _WORDY.search(before):  # a table of numbers, which are many
        return None
    pro = max((match.end() for match in _SPEAKS_FOR.finditer(before)), default=-1)
    con = max((match.end() for match in _SPEAKS_AGAINST.finditer(before)), default=-1)
    if pro > con and _SENTENCE_ENDS.search(before, pro):
        return None
    return None if pro == con else pro > con
