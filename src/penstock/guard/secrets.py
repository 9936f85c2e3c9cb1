"""Recognisers of keys and secrets: most say themselves what they are by a prefix; passwords and the like are told by what is before them.

The formats are those that their issuers document; gitleaks and GitHub's secret scanning list the same ones.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Iterable

from penstock.guard.spans import UNSPACED, Pattern, Scanner

_BEGIN = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_BREAK = r"(?:\r?\n|\\n|\\r)"  # as it is, or escaped in JSON
_LINES = rf"(?:{_BREAK}\s{{0,8}}(?:Proc-Type|DEK-Info):[^\n\\]{{0,80}})*(?:{_BREAK}{{1,2}}\s{{0,8}}[A-Za-z0-9+/=]{{16,}})*"
_LAST_LINE = rf"(?:{_BREAK}\s{{0,8}})?[A-Za-z0-9+/=]*(?:\s|{_BREAK}){{0,8}}"
_END = r"-----END [A-Z0-9 ]{0,50}-----"
_END_SO_FAR = r"(?:-{1,5}|-----E|-----EN|-----END[A-Z0-9 ]{0,50}-{0,5})"
KEY_ENDED = re.compile(rf"{_END}\Z")
KEY_SO_FAR = re.compile(rf"{_END_SO_FAR}\Z")
REST_OF_KEY = re.compile(rf"[A-Za-z0-9+/=]*{_LINES}(?:{_LAST_LINE}(?:{_END}|(?={_END_SO_FAR}\Z)|\Z))?")
_NAMES = (
    r"(?:pass(?:word|wd|phrase)|passwd|pwd|secret(?:[_-]?(?:access)?[_-]?key)?|client[_-]?secret|api[_-]?key|apikey|access[_-]?(?:key|token)|"
    r"auth[_-]?token|refresh[_-]?token|private[_-]?key|account[_-]?key|encryption[_-]?key|signing[_-]?key|token|credentials?)"
)
_STAND_INS = re.compile(
    r"(?i)^(?:\$|<|\{|%|\[|\*+$|x{3,}|\.{3}|[~.]{0,2}/[\w./\-]+$|env\b|process\.|config\b|settings\b|placeholder|example|change.?me|your|"
    r"(?:none|null|true|false|undefined|required|optional|string|redacted|hidden)\b)|environ|getenv|getpass|\w\(|\)$"
)
_HEADER = re.compile(rb'"(?:alg|typ|kid|enc|cty|jku|x5t)"\s*:')


def _random(found: str, before: str) -> bool:
    """Whether it looks drawn at random, and not like words joined by dashes."""
    return bool(re.search(r"\d", found)) and bool(re.search(r"[A-Za-z]", found)) and entropy(found) >= 2.0


def _password(found: str, before: str) -> bool:
    if _STAND_INS.search(found) or len(set(found)) < 4:
        return False
    kinds = sum(bool(re.search(kind, found)) for kind in (r"[a-z]", r"[A-Z]", r"\d", r"[^\w.]"))
    return kinds >= 2 and (bool(re.search(r"\d|[^\w.,;:/\-]", found)) or entropy(found) >= 3.5)


def _token(found: str, before: str) -> bool:
    """Whether it begins as the header of a JSON Web Token does (RFC 7519); what follows may not have come yet."""
    header = found.split(".", 1)[0][:400]
    try:
        return bool(_HEADER.search(base64.urlsafe_b64decode(header[: len(header) // 4 * 4])))
    except binascii.Error:
        return False


def entropy(text: str) -> float:
    """Bits per character by its own frequencies (Shannon)."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def _own(kind: str, regex: str) -> Pattern:
    return Pattern(kind=kind, regex=regex, score=1.0)


PATTERNS = (
    _own("private_key", rf"(?s){_BEGIN}.*?-----END [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----"),
    _own("private_key", _BEGIN + _LINES),  # cut off
    _own("private_key", rf"({_BEGIN}{_LINES}{_LAST_LINE}){_END_SO_FAR}?\z"),  # not at its end yet
    _own("aws_key", r"\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|ANPA|ANVA)[A-Z0-9]{16}\b"),
    _own("github_token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})"),
    _own("gitlab_token", r"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_.\-]{20,255}"),
    Pattern(kind="model_key", regex=r"\b(?:sk-[A-Za-z0-9_\-]{20,}|hf_[A-Za-z0-9]{30,60}|gsk_[A-Za-z0-9]{40,64})", check=_random),
    _own("slack_token", r"\b(?:xox[abeoprs]-[A-Za-z0-9\-]{10,255}|xapp-\d-[A-Za-z0-9\-]{10,255})"),
    _own("slack_token", r"https://hooks\.slack\.com/(?:services|workflows)/([A-Za-z0-9_/]{20,120})"),
    _own("google_key", r"\b(?:AIza[A-Za-z0-9_\-]{35}|ya29\.[A-Za-z0-9_\-]{20,500}|GOCSPX-[A-Za-z0-9_\-]{28})"),
    _own("stripe_key", r"\b(?:[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9+/=]{24,100})"),
    _own("service_key", r"\b(?:npm_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_\-]{50,400}|SG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{16,64})"),
    _own("service_key", r"\b(?:dop_v1_[a-f0-9]{64}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|\d{8,10}:AA[\w\-]{33}|SK[0-9a-f]{32})\b"),
    Pattern(kind="jwt", regex=r"\beyJ[A-Za-z0-9_\-]{16,}(?:\.[A-Za-z0-9_\-]+){0,4}", check=_token),
    Pattern(kind="bearer", regex=r"(?i)\bbearer\s+([A-Za-z0-9._~+/\-]{16,}=*)", check=_random, score=0.9),
    Pattern(kind="bearer", regex=r"(?i)\bauthorization['\"]?\s*[:=]\s*['\"]?basic\s+([A-Za-z0-9+/]{12,500}={0,2})", score=0.9),
    Pattern(kind="password",
            regex=rf"(?i){_NAMES}['\"]?\s{{0,3}}(?:=>|:=|==?|:|\bis\b)\s{{0,3}}['\"]?([^\s'\",;`{UNSPACED}]{{6,500}})",
            check=_password, score=0.7),
)  # fmt: skip


def finders(kinds: Iterable[str]) -> list[Scanner]:
    """One recogniser for each pattern of `kinds`. Raises `MissingExtra`."""
    wanted = set(kinds)
    return [Scanner(pattern) for pattern in PATTERNS if pattern.kind in wanted]
