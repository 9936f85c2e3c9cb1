"""Polite refusals: everything a very small model should not pretend to know.

The prompts range over subjects, code, opinions, health, foreign languages, invented words, keyboard noise and
long pasted text. Near misses are made from the same words as the tasks the model can do (``who is the
president of France?``), so that it declines by what is asked and not by which words occur.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from training.curriculum import out_of_scope as asks
from training.curriculum import topics
from training.curriculum.pasted import pasted
from training.curriculum.phrasing import ask
from training.curriculum.tables import ANIMALS, CAPITALS, CITIES, ELEMENTS, FIRST_NAMES, VOCABULARY
from training.curriculum.turn import Turn
from training.curriculum.words import gibberish, pseudo_word

WHY = {
    "general": (
        "I am a small built-in model, so I cannot help with that.",
        "Sorry, that is more than a small built-in model like me knows.",
    ),
    "code": ("I am a small built-in model and cannot write or read code.",),
    "write": ("I am a small built-in model and cannot write that well.",),
    "language": ("I am a small built-in model and only understand English.",),
    "health": ("I am a small built-in model and cannot give advice on health; please ask a doctor.",),
    "live": ("I am a small built-in model and cannot look things up or act outside this chat.",),
    "opinion": ("I am a small built-in model and have no opinions to offer.",),
    "noise": ("Sorry, I did not understand that; I am only a small built-in model.",),
    "long": ("I am a small built-in model and cannot work with a text like that.",),
    "math": ("I am a small built-in model: I only work with whole numbers up to 999, one or two steps at a time.",),
}
INSTEAD = (
    "I can do arithmetic, convert units, name capitals, sort and count, or tell a short story.",
    "Try simple arithmetic, a capital city, sorting a list, or a short story.",
    "For questions like this, connect Penstock to a larger model.",
)
ALL_ANSWERS = {kind: tuple(f"{why} {instead}" for why in whys for instead in INSTEAD) for kind, whys in WHY.items()}


def declined(turn: Turn, reply: str) -> bool:
    """Any whole refusal will do: which reason it gives matters less than that it is one."""
    return any(reply.strip() in answers for answers in ALL_ANSWERS.values())


# a bare "hello" or "story" is a greeting or a wish, not a word to be asked about
PLAIN_WORDS = tuple(word for word in VOCABULARY if word not in {"hello", "story", "penstock", "game", "morning", "evening"})


def _prompt(kind: str) -> Callable[[Random, tuple[str, ...]], str]:
    def make(rng: Random, templates: tuple[str, ...]) -> str:
        return ask(rng, rng.choice(templates), _slots(rng, kind))

    return make


def _slots(rng: Random, kind: str) -> dict[str, object]:
    """Fillings for the templates of ``kind``."""
    topic = rng.choice(topics.TOPICS) if rng.random() < 0.85 else pseudo_word(rng)
    thing = rng.choice(topics.THINGS) if rng.random() < 0.85 else pseudo_word(rng)
    verb = rng.choice(topics.VERBS) if rng.random() < 0.93 else pseudo_word(rng)
    if kind == "about":
        return {"t": topic, "u": rng.choice(topics.TOPICS)}
    if kind == "how":
        return {"v": verb, "o": thing}
    if kind == "who":
        made_up = f"{rng.choice(FIRST_NAMES)} {pseudo_word(rng).capitalize()}"
        return {"p": rng.choice((rng.choice(topics.PEOPLE), made_up)), "q": rng.choice(topics.PEOPLE)}
    if kind == "word":
        word = rng.choice(PLAIN_WORDS) if rng.random() < 0.7 else pseudo_word(rng)
        return {"w": word, "x": rng.choice(VOCABULARY)}
    if kind == "write":
        return {"x": rng.choice(topics.TEXTS), "t": topic, "o": thing, "n": rng.choice((50, 100, 500, 1000))}
    return _named_slots(rng, kind)


def _named_slots(rng: Random, kind: str) -> dict[str, object]:
    if kind == "code":
        return {"f": rng.choice(topics.PROGRAMS), "l": rng.choice(topics.CODE), "m": rng.choice(topics.CODE)}
    if kind == "translate":
        word = rng.choice(VOCABULARY) if rng.random() < 0.7 else f"{rng.choice(VOCABULARY)} {rng.choice(VOCABULARY)}"
        return {"w": rng.choice((word, f"'{word}'", f'"{word}"')), "l": rng.choice(topics.LANGUAGES)}
    if kind == "math":
        return _hard_numbers(rng)
    if kind == "dated":
        return _dated_slots(rng)
    if kind == "acronym":
        return {name: "".join(rng.choices("ABCDEFGHIKLMNOPRSTUVWX", k=rng.randint(2, 5))) for name in "wv"}
    if kind in ("hard_math", "no_factor"):
        return {"a": rng.randint(2, 999), "b": rng.randint(2, 99)}
    named: dict[str, dict[str, object]] = {
        "invented": {"i": rng.choice(topics.INVENTIONS)},
        "health": {"s": rng.choice(topics.SYMPTOMS)},
        "country": {"c": rng.choice(tuple(CAPITALS)), "d": rng.choice(tuple(CAPITALS))},
        "element": {"e": rng.choice(ELEMENTS).name},
        "animal": {"a": rng.choice(ANIMALS)},
        "place": {"c": rng.choice(CITIES), "d": rng.choice(CITIES)},
    }
    return named[kind]


def _dated_slots(rng: Random) -> dict[str, object]:
    return {
        "e": rng.choice(topics.EVENTS),
        "y": rng.randint(1000, 2030),
        "n": rng.randint(2, 999) if rng.random() < 0.4 else rng.randint(2, 20),
        "t": rng.choice(topics.TOPICS),
        "o": rng.choice(topics.THINGS),
        "v": rng.choice(topics.VERBS),
        "p": rng.choice(topics.PEOPLE),
        "q": rng.choice(topics.PEOPLE),
    }


def _hard_numbers(rng: Random) -> dict[str, object]:
    """Numbers beyond the curriculum: more than three digits, or not whole."""
    big = 10 ** rng.randint(3, 8)
    draw = rng.random()
    if draw < 0.6:
        return {"a": rng.randint(big, big * 10), "b": rng.randint(10 if rng.random() < 0.3 else big, big * 10)}
    return {"a": f"{rng.randint(0, 999)}.{rng.randint(1, 99)}", "b": f"{rng.randint(0, 99)}.{rng.randint(1, 9)}"}


def _everyday(rng: Random, lines: tuple[str, ...]) -> str:
    return ask(rng, rng.choice(lines).replace("{", "").replace("}", ""))


def _nonsense(rng: Random, templates: tuple[str, ...]) -> str:
    return ask(rng, rng.choice(templates), {"w": pseudo_word(rng), "v": pseudo_word(rng)})


def _noise(rng: Random, _: tuple[str, ...]) -> str:
    return gibberish(rng)


def _foreign(rng: Random, lines: tuple[str, ...]) -> str:
    return rng.choice(lines)


def _pasted(rng: Random, templates: tuple[str, ...]) -> str:
    return rng.choice(templates).format(x=pasted(rng))


# kind: weight, reason given, templates, how a prompt is made of them
KINDS: dict[str, tuple[float, str, tuple[str, ...], Callable[[Random, tuple[str, ...]], str]]] = {
    "about": (5, "general", asks.ABOUT, _prompt("about")),
    "how": (5, "general", asks.HOW, _prompt("how")),
    "who": (2, "general", asks.WHO, _prompt("who")),
    "invented": (1, "general", asks.INVENTED, _prompt("invented")),
    "code": (2, "code", asks.CODE, _prompt("code")),
    "write": (2, "write", asks.WRITE, _prompt("write")),
    "translate": (2, "language", asks.TRANSLATE, _prompt("translate")),
    "health": (1, "health", asks.HEALTH, _prompt("health")),
    "country": (3, "general", asks.COUNTRY, _prompt("country")),
    "element": (1, "general", asks.ELEMENT, _prompt("element")),
    "animal": (1, "general", asks.ANIMAL, _prompt("animal")),
    "word": (3, "general", asks.WORD, _prompt("word")),
    "place": (1, "general", asks.PLACE, _prompt("place")),
    "math": (2, "math", asks.MATH, _prompt("math")),
    "hard_math": (1.5, "math", asks.HARD_MATH, _prompt("hard_math")),
    "dated": (3, "general", asks.DATED, _prompt("dated")),
    "no_factor": (0.7, "math", asks.NO_FACTOR, _prompt("no_factor")),
    "acronym": (1, "general", asks.ACRONYM, _prompt("acronym")),
    "everyday": (3, "general", topics.EVERYDAY, _everyday),
    "nonsense": (2, "noise", topics.NONSENSE_ASKS, _nonsense),
    "noise": (2, "noise", (), _noise),
    "foreign": (2, "language", topics.FOREIGN, _foreign),
    "pasted": (4, "long", asks.PASTED, _pasted),
}


def decline(rng: Random) -> Turn:
    """A question out of scope and a polite refusal that says what to ask instead."""
    kind = rng.choices(tuple(KINDS), [weight for weight, *_ in KINDS.values()])[0]
    _, reason, templates, make = KINDS[kind]
    user = make(rng, templates)
    answers = ALL_ANSWERS[reason]
    return Turn("decline", user, rng.choice(answers), f"decline:{user}", also=answers)
