"""How a text stands to what surrounds it: a prompt to what its operator forbids, a statement to the rest of its document.

An instruction is an attack by its place. "What is the key?" is one behind a system prompt that keeps a key, and "Reply in verse"
is one in the middle of an invoice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from penstock.guard.statements import statements

Floats = NDArray[np.float32]

MOST_FORBIDDEN = 4  # statements of a system prompt that are compared with the prompt
MOST_SYSTEMS = 8  # system prompts whose reading is kept: each turn of a chat is judged beside the same one
MOST_ASKED = 6  # statements of a prompt that are: its first and its last

SYSTEM: tuple[str, ...] = (
    *("has a system prompt", "forbids", "words shared with what is forbidden", "share of them", "names shared with it"),
    *("asks for a secret that is kept", "asks for personal data that is kept", "gives data to work on"),
)
DOCUMENT: tuple[str, ...] = (
    *("number of statements", "alone", "first", "last", "place"),
    *("words shared with the rest", "none shared", "a table", "length beside the others'"),
)
NEAR_SYSTEM: tuple[str, ...] = ("near to what is forbidden", "nearest statement to it", "near to the system prompt")
NEAR_DOCUMENT: tuple[str, ...] = ("near to the rest", "near to its neighbours", "nearer than the others are")

_FORBIDS = re.compile(
    r"\b(?:do(?:n'?t| not)|never|not (?:be )?(?:allowed|permitted|programmed|supposed|share|discuss|reveal|disclose|provide|give|talk)"
    r"|avoid|refrain|under no circumstances|must not|mustn'?t|cannot|can'?t|should not|shouldn'?t|forbid\w*|prohibit\w*"
    r"|only (?:discuss|answer|talk|help|allowed)|strict\w*|restrict\w*|confidential\w*|secret\w*|keep|protect\w*|unless|limitation)\b",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"\b(?:pass(?: ?(?:word|code|phrase|key))\w*|secret\w*|keys?|code\w*|credential\w*|confidential\w*|tokens?|pins?|contraseñ\w*"
    r"|mot de passe|passwor\w*|senha|clave|kennwort)|パスワード|密码|暗号|비밀|парол",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"\b(?:e-?mails?|address\w*|birth\w*|born|lives?|living|city|residence|colou?r|initials?|name|phone|ag(?:e|ed)|old|user'?s?|balance"
    r"|account|location|favou?rite|correo|ciudad|nacimiento)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{3,}")
_NAME = re.compile(r"(?<=[\w,'\"] )[A-Z][a-z]{2,}")
_ANY_NAME = re.compile(r"[A-Z][a-z]{2,}")
_COMMON_WORDS = (
    "the and for are was were not you your yours can could would should will shall may might must this that these those with from into "
    "about over under what when where which who whom whose why how has have had does did don any all some each every other than then "
    "them they their there here his her hers him she its our ours out off one two also just only very more most such much many being "
    "been but because please tell give make"
)
_COMMON = frozenset(_COMMON_WORDS.split())


@lru_cache(maxsize=MOST_SYSTEMS)
def forbidden(system: str) -> tuple[str, ...]:
    """The statements of a system prompt that say what must not be done, the last ones where there are many."""
    found = [system[start:end] for start, end in statements(system)]
    return tuple([sentence for sentence in found if _FORBIDS.search(sentence)][-MOST_FORBIDDEN:])


def asked(text: str) -> list[str]:
    """The first and the last statements of a prompt: where people say what they want."""
    found = [text[start:end] for start, end in statements(text)]
    return found if len(found) <= MOST_ASKED else [*found[: MOST_ASKED // 2], *found[-MOST_ASKED // 2 :]]


def stems(text: str) -> frozenset[str]:
    """The words of a text that mean something, cut to their first letters."""
    return frozenset(word[:6] for word in _WORD.findall(text.lower()) if word not in _COMMON)


def against_system(text: str, system: str) -> Floats:
    """[len(SYSTEM)]: what the words of a prompt have to do with its system prompt; zeros without one."""
    if not system:
        return np.zeros(len(SYSTEM), dtype=np.float32)
    kept = " ".join(forbidden(system))
    own, theirs = stems(text), stems(kept)
    shared = len(own & theirs)
    share = shared / max(min(len(own), len(theirs)), 1)
    names = len(set(_NAME.findall(system)) & set(_ANY_NAME.findall(text))) if kept else 0
    secret = bool(kept and _SECRET.search(system) and _SECRET.search(text))
    personal = bool(kept and ("@" in system or "born" in system) and _PERSONAL.search(text))
    found = (1, bool(kept), min(shared, 4) / 4, share, min(names, 3) / 3, secret, personal, "content" in system)
    return np.array(found, dtype=np.float32)


def against_document(found: Sequence[str], table: bool) -> Floats:
    """[statements, len(DOCUMENT)]: where each statement of a document stands, and which words it shares with the others."""
    number = len(found)
    words = [stems(sentence) for sentence in found]
    holders: dict[str, int] = {}
    for own in words:
        for stem in own:
            holders[stem] = holders.get(stem, 0) + 1
    typical = float(np.median([len(sentence) for sentence in found])) if found else 1.0
    rows = []
    for at, own in enumerate(words):
        shared = sum(holders[stem] > 1 for stem in own) / max(len(own), 1)
        longer = float(np.tanh(np.log((len(found[at]) + 1) / (typical + 1))))
        place = at / max(number - 1, 1)
        rows.append((np.log1p(number) / 4, number == 1, at == 0, at == number - 1, place, shared, shared == 0, table, longer))
    return np.array(rows, dtype=np.float32).reshape(number, len(DOCUMENT))


def near_system(asking: Floats, keeping: Floats, system: Floats) -> Floats:
    """[len(NEAR_SYSTEM)] from unit vectors: of a prompt and its statements [n, d], of what is forbidden [m, d], of the system prompt."""
    near = asking @ keeping.T if len(keeping) else np.zeros((len(asking), 1), dtype=np.float32)
    return np.array((near[0].max(), near.max(), float(asking[0] @ system)), dtype=np.float32)


def near_document(vectors: Floats) -> Floats:
    """[statements, len(NEAR_DOCUMENT)] from the statements' unit vectors [statements, d]: how near each is to the others."""
    if len(vectors) < 2:
        return np.ones((len(vectors), len(NEAR_DOCUMENT)), dtype=np.float32)
    rest = vectors.sum(axis=0, keepdims=True) - vectors
    rest /= np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-6)
    to_rest = (vectors * rest).sum(axis=1)
    steps = (vectors[1:] * vectors[:-1]).sum(axis=1)
    beside = np.maximum(np.concatenate((steps[:1], steps)), np.concatenate((steps, steps[-1:])))
    return np.stack((to_rest, beside, to_rest - np.median(to_rest)), axis=1).astype(np.float32)
