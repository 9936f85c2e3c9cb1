"""Unit conversion between whole amounts, both ways, and temperatures."""

from __future__ import annotations

from random import Random

from training.curriculum.phrasing import ask
from training.curriculum.turn import Turn

# large unit, small unit, how many small ones in a large one, largest amount asked for
SCALES = (
    ("kilometers", "meters", 1000, 99),
    ("meters", "centimeters", 100, 99),
    ("centimeters", "millimeters", 10, 99),
    ("kilograms", "grams", 1000, 99),
    ("liters", "milliliters", 1000, 99),
    ("hours", "minutes", 60, 24),
    ("minutes", "seconds", 60, 24),
    ("days", "hours", 24, 14),
    ("weeks", "days", 7, 30),
    ("years", "months", 12, 20),
    ("feet", "inches", 12, 20),
    ("yards", "feet", 3, 60),
    ("dollars", "cents", 100, 99),
    ("tons", "kilograms", 1000, 99),
    ("pounds", "ounces", 16, 12),
    ("gallons", "quarts", 4, 40),
    ("dozens", "items", 12, 12),
    ("meters", "millimeters", 1000, 99),
)
SHORT = {
    "kilometers": "km",
    "meters": "m",
    "centimeters": "cm",
    "millimeters": "mm",
    "kilograms": "kg",
    "grams": "g",
    "liters": "l",
    "milliliters": "ml",
    "hours": "h",
    "minutes": "min",
    "seconds": "s",
    "pounds": "lb",
    "ounces": "oz",
    "feet": "ft",
    "inches": "in",
}
SINGULAR = {"feet": "foot", "inches": "inch", "centuries": "century"}
HOW_MANY = (
    "How many {to} are in {n} {from}?",
    "How many {to} are {n} {from}?",
    "Convert {n} {from} to {to}.",
    "What is {n} {from} in {to}?",
    "{n} {from} in {to}",
    "{n} {from} to {to}",
    "How much is {n} {from} in {to}?",
    "How many {to} is {n} {from}?",
    "Change {n} {from} into {to}.",
    "How many {to} in {n} {from}?",
)


def one_or_many(n: int, unit: str) -> str:
    """``1 hour``, ``2 hours``."""
    return f"{n} {unit if n != 1 else SINGULAR.get(unit, unit[:-1])}"


def _shown(rng: Random, unit: str) -> str:
    return SHORT[unit] if unit in SHORT and rng.random() < 0.35 else unit


def convert(rng: Random) -> Turn:
    """A whole amount from the larger unit to the smaller, or back where it comes out even."""
    large, small, factor, most = rng.choice(SCALES)
    n = rng.randint(1, most)
    down = rng.random() < 0.6
    amount, source, target = (n, large, small) if down else (n * factor, small, large)
    result = n * factor if down else n
    slots = {"n": amount, "from": _shown(rng, source), "to": _shown(rng, target)}
    if amount == 1 and slots["from"] == source:
        slots["from"] = SINGULAR.get(source, source[:-1])
    template = rng.choice(HOW_MANY)
    verb = "is" if amount == 1 else "are"
    answer = f"{one_or_many(amount, source)} {verb} {one_or_many(result, target)}."
    wording = f":{template}" if n == 1 else ""
    return Turn("convert", ask(rng, template, slots), answer, f"convert:{large}:{small}:{n}{wording}", result=result)


TO_FAHRENHEIT = (
    "What is {n} °C in °F?",
    "Convert {n} Celsius to Fahrenheit.",
    "{n} degrees Celsius in Fahrenheit",
    "How much is {n} C in F?",
    "Convert {n} degrees Celsius to Fahrenheit.",
    "{n}°C in Fahrenheit?",
)
TO_CELSIUS = (
    "What is {n} °F in °C?",
    "Convert {n} Fahrenheit to Celsius.",
    "{n} degrees Fahrenheit in Celsius",
    "How much is {n} F in C?",
    "Convert {n} degrees Fahrenheit to Celsius.",
    "{n}°F in Celsius?",
)


def temperature(rng: Random) -> Turn:
    """Celsius and Fahrenheit, in steps of five degrees Celsius."""
    celsius = rng.randint(-8, 20) * 5
    fahrenheit = celsius * 9 // 5 + 32
    up = rng.random() < 0.6
    template = rng.choice(TO_FAHRENHEIT if up else TO_CELSIUS)
    user = ask(rng, template, {"n": celsius if up else fahrenheit})
    answer = f"{celsius} °C is {fahrenheit} °F." if up else f"{fahrenheit} °F is {celsius} °C."
    return Turn("temperature", user, answer, f"temperature:{celsius}:{template}")


CLOCK = ("How many {to} are in a {from}?", "How many {to} does a {from} have?", "How many {to} are there in one {from}?")
PARTS = {
    ("week", "days"): 7,
    ("day", "hours"): 24,
    ("hour", "minutes"): 60,
    ("minute", "seconds"): 60,
    ("year", "months"): 12,
    ("year", "weeks"): 52,
    ("year", "days"): 365,
    ("kilometer", "meters"): 1000,
    ("meter", "centimeters"): 100,
    ("kilogram", "grams"): 1000,
    ("foot", "inches"): 12,
    ("decade", "years"): 10,
    ("century", "years"): 100,
    ("dozen", "items"): 12,
    ("yard", "feet"): 3,
    ("pound", "ounces"): 16,
    ("dollar", "cents"): 100,
}


def parts(rng: Random) -> Turn:
    """How many of one unit make another, as plain facts."""
    (whole, part), n = rng.choice(tuple(PARTS.items()))
    template = rng.choice(CLOCK)
    user = ask(rng, template, {"to": part, "from": whole}).replace("a hour", "an hour")
    article = "an" if whole == "hour" else "a"
    return Turn("parts", user, f"There are {n} {part} in {article} {whole}.", f"parts:{whole}:{part}:{template}", result=n)
