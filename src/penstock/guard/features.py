"""A text as numbers for the guards' linear heads: hashed n-grams, and a few counts that do not depend on its words.

The n-grams are of characters and of words (Joachims, 1998; Weinberger et al., 2009: the hashing trick): what a head weighs is a
bucket, so that a shipped head holds no text of its training data. The counts are shares and logarithms, about 0 to 1 each.
"""

from __future__ import annotations

import re
import unicodedata
import zlib

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Buckets = NDArray[np.int64]
_Words = NDArray[np.uint64]

BITS = 16
BUCKETS = 2 << BITS  # those of character n-grams, then those of word n-grams
CHARACTER_GRAMS = (3, 4, 5)
WORD_GRAMS = (1, 2, 3)
MOST_CHARS = 20_000  # of a text that are looked at: its first and last

_BASE = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile(r"\w+|[^\w\s]")
_SPACE = re.compile(r"\s+")
_DIGITS = re.compile(r"\d+")


class Grams(Struct, frozen=True):
    """The buckets of a text's n-grams, each once, and their weights: 1 + log of the count, of length one for each kind."""

    buckets: Buckets
    weights: Floats


def grams(text: str) -> Grams:
    """The n-grams of a text in lower case, with digits made alike and spaces single."""
    if len(text) > MOST_CHARS:
        text = f"{text[: MOST_CHARS // 2]} {text[-MOST_CHARS // 2 :]}"
    clean = _DIGITS.sub("0", _SPACE.sub(" ", unicodedata.normalize("NFKC", text).lower())).strip()
    characters = np.frombuffer(f" {clean} ".encode("utf-8", "replace"), dtype=np.uint8).astype(np.uint64)
    words = np.fromiter((zlib.crc32(word.encode("utf-8", "replace")) for word in _WORD.findall(clean)), dtype=np.uint64)
    first, first_weights = _counted(characters, CHARACTER_GRAMS)
    second, second_weights = _counted(words, WORD_GRAMS)
    return Grams(np.concatenate((first, second + (1 << BITS))), np.concatenate((first_weights, second_weights)))


def _counted(symbols: _Words, sizes: tuple[int, ...]) -> tuple[Buckets, Floats]:
    rolled = []
    for size in sizes:
        if len(symbols) >= size:
            one = np.full(len(symbols) - size + 1, size, dtype=np.uint64)
            for start in range(size):
                one = one * _BASE + symbols[start : len(symbols) - size + 1 + start]
            rolled.append(one)
    if not rolled:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    buckets, counted = np.unique((np.concatenate(rolled) * _MIX) >> np.uint64(64 - BITS), return_counts=True)
    weights = (1 + np.log(counted)).astype(np.float32)
    return buckets.astype(np.int64), weights / np.float32(np.linalg.norm(weights))


# Words that speak to a model, or about what it was told. Each is looked for as a whole word, whatever its case. What may stand before
# or between them is bounded: over a run of line ends or brackets the time would grow with the square of its length.
_MODEL = r"(?:a\.?i\.?|assistants?|chat ?gpt|gpt(?:-?\d)?|(?:language )?models?|chat ?bots?|llms?|bots?|claude|gemini|dan)"
_TOLD = (
    r"(?:instructions?|prompts?|rules?|guidelines?|directions?|directives?|orders?|commands?|"
    r"restrictions?|polic(?:y|ies)|filters?|programming|context|constraints?|safeguards?|training|"
    r"messages?|conversations?|settings|system prompt|text|content|information)"
)
_UNDO = (
    r"(?:ignore|disregard|forget|bypass|override|overwrite|overrule|circumvent|disobey|skip|neglect|drop|"
    r"cancel|erase|discard|dismiss|stop (?:following|obeying)|do(?:n't| not) (?:follow|obey|listen to|"
    r"pay attention to)|no longer (?:follow|obey|bound))"
)
_EARLIER = (
    r"(?:previous(?:ly)?|prior|above|earlier|preceding|former|foregoing|initial|original|past|existing|"
    r"all|any|every(?:thing)?|your|the|these|those|other)"
)
_REPLY = (
    r"(?:response|reply|replies|answer|output|message|summary|explanation|text you write|elucidation|"
    r"solution|implementation|code ?base|algorithm|code)"
)
_TELL = (
    r"(?:tell|reveal|share|show|give|print|output|repeat|display|disclose|say|leak|expose|confirm|provide|"
    r"spell|write|recite|dump|what(?:'s| is| are| was| were))"
)
_SECRET = (
    r"(?:passwords?|pass ?codes?|pass ?phrases?|secrets?|(?:secret |api |access |private )keys?|"
    r"credentials?|confidential|system prompt|initial prompt|hidden (?:prompt|instructions?))"
)

PATTERNS: dict[str, str] = {
    "undo what was told": rf"\b{_UNDO}\b[^.!?\n]{{0,24}}\b{_EARLIER}\b[^.!?\n]{{0,40}}\b{_TOLD}\b",
    "undo what came before": (
        rf"\b{_UNDO}\b[^.!?\n]{{0,16}}\b(?:everything|all|anything|what(?:ever)?)\b[^.!?\n]{{0,24}}\b(?:above|"
        r"before|previously|earlier|said|told|learned)\b"
    ),
    "undo": rf"\b{_UNDO}\b",
    "new persona": (
        r"\b(?:you are (?:now|going to)|you're now|from now on|act as|acting as|pretend|role-?play|simulate|"
        r"behave (?:as|like)|imagine (?:you|that you|we)|you will (?:be|act|play)|stay in character|persona|"
        r"alter ego)\b"
    ),
    "no limits": (
        r"\b(?:do anything now|jail ?break(?:ed|ing)?|un(?:filtered|censored|restricted|limited|ethical|"
        r"moderated)|no (?:\w+ )?(?:restrictions?|limits?|limitations?|filters?|rules|morals|ethics|"
        r"boundaries|guidelines)|without (?:any )?(?:\w+ )?(?:restrictions?|filters?|limits?|censorship|"
        r"warnings?|disclaimers?|moral\w*|ethic\w*)|free (?:of|from) (?:all |any |"
        r"the )?(?:\w+ )?(?:restrictions?|rules|filters?|confines|constraints?)|developer mode|god mode|"
        r"dan mode|evil)\b"
    ),
    "ask for a secret": rf"\b{_TELL}\b[^.!?\n]{{0,60}}\b{_SECRET}\b",
    "a secret": rf"\b{_SECRET}\b",
    "system mode": (
        r"(?:[<\[({#*]{1,40} ?/?(?:system|admin|sys|inst|developer|im_start|im_end|assistant|user)\b|\b(?:system|"
        r"admin|developer|maintenance|debug|root|override|safe|test|diagnostic|emergency)[ _-](?:mode|"
        r"override|reset|access|check|message|prompt)\b|^\s{0,40}(?:system|assistant|human|user) ?:|\bsudo\b)"
    ),
    "change the reply": (
        r"\b(?:in|to|into|of|with|for|from|at|within|through|throughout|as|on|about|your|the|this)\b (?:the |"
        rf"this |each |every |every one of )?(?:\w+ )?your (?:\w+ )?{_REPLY}\b|"
        rf"\byour (?:\w+ )?{_REPLY}(?:'s)?\b"
    ),
    "speaks of the reply": (
        r"\b(?:reply|respond|answer|output|return|print|say|state)\b (?:only |just |exactly |with|in|using|"
        r"that|as|the following|back|\"|'|:)"
    ),
    "what was told": rf"\b{_TOLD}\b",
    "a model": rf"\b{_MODEL}\b",
    "you": r"\b(?:you|your|yours|yourself|you're|you'll|u)\b",
    "must": r"\b(?:must|always|never|shall|only|will|cannot|can't|not allowed|don't|do not|no matter)\b",
    "authority": (
        r"\b(?:i am|i'm|as) (?:an? |the |your |god|in )?(?:\w+ )?(?:developers?|administrators?|admin|"
        r"creators?|boss|police|officer|owner|god|president|ceo|maintainer|manager|openai|anthropic|"
        r"government|doctor|engineer|authorized|root)\b"
    ),
    "decode it": (
        r"\b(?:decode|decipher|decrypt|base ?64|rot ?13|caesar|hex(?:adecimal)?|binary string|pig latin|morse|"
        r"backwards?|reversed?|cipher|encode|encrypt|obfuscate|concatenate|interlace|combine|split)\b"
    ),
    "suppose": (
        r"\b(?:hypothetical(?:ly)?|suppose|let's (?:say|assume|imagine|pretend)|in a (?:world|parallel|"
        r"fictional|society|universe)|parallel universe|alternate reality|fiction(?:al)?|just (?:for fun|"
        r"a game)|game)\b"
    ),
    "question": r"\?",
    "asks": r"^\W{0,40}(?:who|what|when|where|why|how|which|whose|can|could|would|will|do|does|did|is|are|was|were|may|should|have|has)\b",
    "orders": (
        r"^\W{0,40}(?:please )?(?:add|analy[sz]e|append|apply|answer|augment|build|calculate|change|classify|"
        r"combine|compose|compute|convert|create|define|delete|describe|design|determine|develop|discuss|do|"
        r"download|draft|encode|encrypt|enhance|ensure|explain|express|find|forget|forward|generate|give|"
        r"group|help|identify|ignore|include|insert|integrate|introduce|invert|list|make|mention|modify|name|"
        r"open|output|print|produce|promote|provide|recommend|remove|render|replace|reply|repeat|respond|"
        r"return|reverse|rewrite|run|say|search|send|share|shift|show|solve|start|state|stop|substitute|"
        r"suggest|summari[sz]e|tell|translate|use|write)\b"
    ),
    "addressed": (
        r"^\W{0,40}(?:hey|hi|hello|dear|attention|note|important|urgent|psst)\b[ ,:]*(?:to )?(?:the )?(?:a\.?i\.?|"
        r"assistant|model|gpt|chat ?gpt|chatbot|llm|bot)\b"
    ),
    "link": r"(?:https?://|www\.|\b[\w-]{1,64}\.(?:com|org|net|io|xyz)\b)",
    "markup": r"(?:```|<!--|<[a-z]+[ >]|^\s{0,40}(?:#|//|/\*)|\{\s{0,40}\")",
    "quoted": r"[\"“«](?:[^\"”»\n]{3,2000})[\"”»]|'(?:[^'\n]{12,})'",
}
_COMPILED = tuple(re.compile(pattern, re.MULTILINE) for pattern in PATTERNS.values())  # over text in lower case
SHARES = ("length", "upper case", "shouted words", "digits", "beyond ASCII", "punctuation", "repeated words", "lines")
COUNTS: tuple[str, ...] = (*SHARES, *PATTERNS, *(f"{name}, for its length" for name in PATTERNS))


def counts(text: str) -> Floats:
    """[len(COUNTS)]: shares of a text's characters and words, and how often it says what attacks say."""
    text = text if len(text) <= MOST_CHARS else f"{text[: MOST_CHARS // 2]}\n{text[-MOST_CHARS // 2 :]}"
    size = max(len(text), 1)
    words = text.split()
    number = max(len(words), 1)
    shares = (
        np.log1p(size) / 9,
        sum(map(str.isupper, text)) / size,
        sum(len(word) > 2 and word.isupper() for word in words) / number,
        sum(map(str.isdigit, text)) / size,
        sum(ord(character) > 127 for character in text) / size,
        sum(not (character.isalnum() or character.isspace()) for character in text) / size,
        1 - len(set(words)) / number if number > 12 else 0.0,
        np.log1p(text.count("\n")) / 4,
    )
    low = text.lower()
    found = np.array([sum(1 for _ in pattern.finditer(low)) for pattern in _COMPILED], dtype=np.float32)
    often, dense = np.minimum(np.log1p(found) / 2, 1.5), np.minimum(found * 12 / (number + 8), 1.5)
    return np.concatenate((np.array(shares), often, dense)).astype(np.float32)
