"""Small tables of facts: capitals, elements, the calendar, opposites, animals, planets, colours.

A fact cannot be held out and still be known, so here the item is the fact together with its wording.
"""

from __future__ import annotations

from random import Random

from training.curriculum.phrasing import ask, casual
from training.curriculum.tables import (
    CAPITALS,
    COLORS_OF,
    ELEMENTS,
    LEGS,
    MIXES,
    MONTH_DAYS,
    MONTHS,
    OPPOSITES,
    PLANETS,
    SOUNDS,
    WEEK,
)
from training.curriculum.turn import Turn
from training.curriculum.words import pseudo_word

CAPITAL = (
    "What is the capital of {x}?",
    "What is the capital of {x}?",
    "What's the capital of {x}?",
    "Capital of {x}?",
    "capital of {x}",
    "What is the capital city of {x}?",
    "Which city is the capital of {x}?",
    "{x} capital",
    "Name the capital of {x}.",
    "Tell me the capital of {x}.",
    "What is {x}'s capital?",
    "Do you know the capital of {x}?",
    "The capital of {x} is",
    "whats the capital of {x}",
    "And the capital of {x}?",
    "What city is the capital of {x}?",
)
COUNTRY = (
    "{x} is the capital of which country?",
    "Which country has {x} as its capital?",
    "What country is {x} the capital of?",
    "Of which country is {x} the capital?",
    "{x} is the capital of what?",
)
CITY_STATES = {"Luxembourg", "Monaco", "Singapore"}


def _bare(country: str) -> str:
    return country.removeprefix("the ")


def capital_answer(country: str) -> str:
    return f"The capital of {country} is {CAPITALS[country]}" + ("" if CAPITALS[country].endswith(".") else ".")


def capital(rng: Random) -> Turn:
    """The capital of a country."""
    country, template = rng.choice(tuple(CAPITALS)), rng.choice(CAPITAL)
    named = _bare(country) if rng.random() < 0.3 else country
    user = ask(rng, template, {"x": casual(rng, named)})
    return Turn("capital", user, capital_answer(country), f"capital:{country}:{template}")


def country(rng: Random) -> Turn:
    """The country of a capital."""
    name = rng.choice([c for c in CAPITALS if c not in ("the USA", "England", *CITY_STATES)])
    template = rng.choice(COUNTRY)
    user = ask(rng, template, {"x": casual(rng, CAPITALS[name])})
    return Turn("country", user, f"{CAPITALS[name]} is the capital of {name}.", f"country:{name}:{template}")


def no_capital(rng: Random) -> Turn:
    """A place the table does not have: saying so beats inventing a city."""
    place = pseudo_word(rng).capitalize()
    if rng.random() < 0.4:
        place = rng.choice(
            (
                "Atlantis",
                "Wakanda",
                "Narnia",
                "Mordor",
                "the moon",
                "Europe",
                "Asia",
                "Africa",
                "Mars",
                "Texas",
                "California",
                "Bavaria",
                "my country",
                "the world",
                "Gondor",
                "Antarctica",
            )
        )
    template = rng.choice(CAPITAL)
    user = ask(rng, template, {"x": casual(rng, place)})
    return Turn("no_capital", user, NO_CAPITAL, f"no_capital:{place}:{template}")


NO_CAPITAL = "I do not have a capital for that in my small table of countries."

SYMBOL = (
    "What is the chemical symbol for {x}?",
    "What is the symbol for {x}?",
    "Chemical symbol of {x}?",
    "What's the symbol of {x}?",
    "symbol for {x}",
    "What is the chemical symbol of {x}?",
    "Which symbol does {x} have?",
)
ELEMENT = (
    "Which element has the symbol {x}?",
    "What element is {x}?",
    "What is the element with the symbol {x}?",
    "What does the chemical symbol {x} stand for?",
    "Which chemical element is {x}?",
)
ATOMIC = (
    "What is the atomic number of {x}?",
    "Atomic number of {x}?",
    "What's the atomic number of {x}?",
    "Which atomic number does {x} have?",
    "atomic number for {x}",
)
BY_NUMBER = (
    "Which element has atomic number {x}?",
    "What element has the atomic number {x}?",
    "What is element {x}?",
    "Element number {x}?",
)


def element(rng: Random) -> Turn:
    """Symbols and atomic numbers of the chemical elements, in either direction."""
    number, name, symbol = rng.choice(ELEMENTS)
    group = rng.choice((SYMBOL, SYMBOL, ELEMENT, ATOMIC, BY_NUMBER))
    template = rng.choice(group)
    title = casual(rng, name)
    slots: dict[tuple[str, ...], object] = {SYMBOL: title, ELEMENT: symbol, ATOMIC: title, BY_NUMBER: number}
    answers = {
        SYMBOL: f"The chemical symbol for {name} is {symbol}.",
        ELEMENT: f"{symbol} is the chemical symbol for {name}.",
        ATOMIC: f"The atomic number of {name} is {number}.",
        BY_NUMBER: f"{name.capitalize()} has atomic number {number}.",
    }
    return Turn("element", ask(rng, template, {"x": slots[group]}), answers[group], f"element:{name}:{template}")


AFTER_DAY = ("What day comes after {x}?", "Which day comes after {x}?", "What is the day after {x}?", "What day follows {x}?")
BEFORE_DAY = ("What day comes before {x}?", "Which day is before {x}?", "What is the day before {x}?")
AFTER_MONTH = ("What month comes after {x}?", "Which month follows {x}?", "What is the month after {x}?")
BEFORE_MONTH = ("What month comes before {x}?", "Which month is before {x}?", "What is the month before {x}?")
DAYS_IN = ("How many days are in {x}?", "How many days does {x} have?", "How long is {x}?", "Number of days in {x}?")

ALL_OF = ("Name the {x}.", "What are the {x}?", "List the {x}.", "List all {x}.", "Tell me the {x}.", "the {x}", "Can you name the {x}?")


def calendar(rng: Random) -> Turn:
    """The day or month before and after, and how long the months are."""
    if rng.random() < 0.15:
        days, template = rng.random() < 0.5, rng.choice(ALL_OF)
        user = ask(rng, template, {"x": "days of the week" if days else "months of the year"})
        return Turn("calendar", user, f"{', '.join(WEEK if days else MONTHS)}.", f"calendar:all:{user}")
    if rng.random() < 0.25:
        return _days_in(rng)
    cycle, unit = rng.choice(((WEEK, "day"), (MONTHS, "month")))
    step = rng.choice((1, -1))
    group = {("day", 1): AFTER_DAY, ("day", -1): BEFORE_DAY, ("month", 1): AFTER_MONTH, ("month", -1): BEFORE_MONTH}
    at, template = rng.randrange(len(cycle)), rng.choice(group[unit, step])
    other = cycle[(at + step) % len(cycle)]
    answer = f"{other} comes {'after' if step == 1 else 'before'} {cycle[at]}."
    return Turn("calendar", ask(rng, template, {"x": casual(rng, cycle[at])}), answer, f"calendar:{cycle[at]}:{template}")


def _days_in(rng: Random) -> Turn:
    at, template = rng.randrange(12), rng.choice(DAYS_IN)
    extra = ", or 29 in a leap year" if at == 1 else ""
    answer = f"{MONTHS[at]} has {MONTH_DAYS[at]} days{extra}."
    return Turn("calendar", ask(rng, template, {"x": casual(rng, MONTHS[at])}), answer, f"calendar:{MONTHS[at]}:{template}")


OPPOSITE = (
    "What is the opposite of {x}?",
    "What's the opposite of {x}?",
    "Opposite of {x}?",
    "Give me the opposite of {x}.",
    "Which word is the opposite of {x}?",
    "antonym of {x}",
)
AMBIGUOUS = {"light", "short"}


def opposite(rng: Random) -> Turn:
    """The opposite of a common word."""
    pair = rng.choice(OPPOSITES)
    word, other = pair if pair[1] in AMBIGUOUS or rng.random() < 0.6 else (pair[1], pair[0])
    template = rng.choice(OPPOSITE)
    user = ask(rng, template, {"x": casual(rng, word)})
    return Turn("opposite", user, f"The opposite of {word} is {other}.", f"opposite:{word}:{template}")


SOUND = ("What sound does a {x} make?", "What does a {x} say?", "What noise does a {x} make?", "Which sound does a {x} make?")
LEG = ("How many legs does a {x} have?", "How many legs has a {x}?", "Number of legs of a {x}?")


def _an(text: str) -> str:
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text


def animal(rng: Random) -> Turn:
    """What animals say and how many legs they have."""
    if rng.random() < 0.5:
        name, template = rng.choice(tuple(SOUNDS)), rng.choice(SOUND)
        answer = f"A {name} says {SOUNDS[name]}."
    else:
        name, template = rng.choice(tuple(LEGS)), rng.choice(LEG)
        answer = f"A {name} has {LEGS[name] or 'no'} legs."
    return Turn("animal", _an(ask(rng, template, {"x": name})), _an(answer), f"animal:{name}:{template}")


COLOR_OF = ("What color is {x}?", "What colour is {x}?", "Which color does {x} have?", "What is the color of {x}?")
MIX = ("What color do you get when you mix {x} and {y}?", "What do {x} and {y} make?", "Mix {x} and {y}.", "{x} and {y} make which color?")


def color(rng: Random) -> Turn:
    """Colours of common things and of mixtures."""
    if rng.random() < 0.5:
        thing, template = rng.choice(tuple(COLORS_OF)), rng.choice(COLOR_OF)
        answer = f"{thing[0].upper()}{thing[1:]} is {COLORS_OF[thing]}."
        return Turn("color", ask(rng, template, {"x": thing}), answer, f"color:{thing}:{template}")
    pair, template = rng.choice(tuple(MIXES)), rng.choice(MIX)
    first, second = pair if rng.random() < 0.5 else pair[::-1]
    answer = f"{first.capitalize()} and {second} make {MIXES[pair]}."
    return Turn("color", ask(rng, template, {"x": first, "y": second}), answer, f"mix:{pair}:{template}")


NTH = (
    "Which planet is number {n} from the sun?",
    "What is planet number {n} from the sun?",
    "What is the {nth} planet from the sun?",
    "Which is the {nth} planet?",
)
ORDINALS = "first second third fourth fifth sixth seventh eighth".split()

SPECIAL_PLANETS = (
    ("largest planet", "Jupiter"),
    ("biggest planet", "Jupiter"),
    ("smallest planet", "Mercury"),
    ("closest planet to the sun", "Mercury"),
    ("farthest planet from the sun", "Neptune"),
    ("red planet", "Mars"),
    ("hottest planet", "Venus"),
)


def planet(rng: Random) -> Turn:
    """The planets in order."""
    if rng.random() < 0.4:
        asked, name = rng.choice(SPECIAL_PLANETS)
        user = ask(rng, rng.choice(("What is the {x}?", "Which planet is the {x}?", "What's the {x}?", "Name the {x}.")), {"x": asked})
        return Turn("planet", user, f"The {asked} is {name}.", f"planet:{asked}:{user}")
    if rng.random() < 0.3:
        user = ask(rng, rng.choice(ALL_PLANETS))
        kind = "number" if "many" in user.lower() else "names"
        answer = "There are eight planets." if kind == "number" else f"The planets are {', '.join(PLANETS[:-1])} and {PLANETS[-1]}."
        return Turn("planet", user, answer, f"planets:{user}")
    at, template = rng.randrange(8), rng.choice(NTH)
    user = ask(rng, template, {"n": at + 1, "nth": ORDINALS[at]})
    return Turn("planet", user, f"The {ORDINALS[at]} planet from the sun is {PLANETS[at]}.", f"planet:{at}:{template}")


ALL_PLANETS = ("Name the planets.", "What are the planets?", "List the planets of the solar system.", "How many planets are there?")
