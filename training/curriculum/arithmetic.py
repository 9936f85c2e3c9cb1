"""Addition, subtraction, multiplication and division of whole numbers, with short derivations.

Sums and differences go up to 999, products up to two digits times two. Sums to 12 + 12 and the times table
to 12 × 12 count as facts: there the wording is held out. For every other item the pair of numbers is.
"""

from __future__ import annotations

from random import Random

from training.curriculum.numerals import in_words
from training.curriculum.phrasing import ask
from training.curriculum.tables import FIRST_NAMES, THINGS
from training.curriculum.turn import Turn

SIGNS = {
    "add": ("{a} + {b}", "{a}+{b}", "{a} plus {b}", "{a} + {b}", "{a}+{b}", "{a} and {b} added", "{a} added to {b}"),
    "subtract": ("{a} - {b}", "{a}-{b}", "{a} minus {b}", "{a} − {b}", "{a} - {b}", "{a} take away {b}", "{a} less {b}"),
    "multiply": ("{a} × {b}", "{a}*{b}", "{a} * {b}", "{a} x {b}", "{a}x{b}", "{a} times {b}", "{a} multiplied by {b}"),
    "divide": ("{a} ÷ {b}", "{a}/{b}", "{a} / {b}", "{a} divided by {b}", "{a} / {b}", "{a}/{b}"),
}
FRAMES = (
    "What is {e}?",
    "What is {e}?",
    "What's {e}?",
    "{e}",
    "{e} = ?",
    "{e} =",
    "{e}?",
    "Calculate {e}.",
    "Compute {e}.",
    "How much is {e}?",
    "What does {e} equal?",
    "Solve {e}.",
    "Solve: {e}",
    "And {e}?",
    "What about {e}?",
    "Work out {e}.",
    "Can you calculate {e}?",
    "What do you get for {e}?",
    "Can you do {e}?",
    "Evaluate {e}.",
    "What is the result of {e}?",
    "{e} is?",
    "I need {e}.",
    "Do you know what {e} is?",
    "Whats {e}",
    "what {e}",
)
VERBS = {
    "add": (
        "Add {a} and {b}.",
        "Add {a} to {b}.",
        "What is the sum of {a} and {b}?",
        "Sum {a} and {b}.",
        "What do I get if I add {a} and {b}?",
        "If you add {b} to {a}, what do you get?",
        "Add {a} {b}",
    ),
    "subtract": (
        "Subtract {b} from {a}.",
        "Take {b} away from {a}.",
        "What is the difference between {a} and {b}?",
        "What is left of {a} if I take away {b}?",
    ),
    "multiply": (
        "Multiply {a} by {b}.",
        "Multiply {a} and {b}.",
        "What is the product of {a} and {b}?",
        "What do I get if I multiply {a} by {b}?",
    ),
    "divide": ("Divide {a} by {b}.", "How many times does {b} go into {a}?", "Split {a} into {b} equal parts."),
}


def worded(rng: Random, kind: str, a: int, b: int) -> str:
    """``a`` and ``b`` in one of the many ways to ask for ``kind``."""
    spelled = rng.random() < 0.04 and max(a, b) < 100
    slots = {"a": in_words(a), "b": in_words(b)} if spelled else {"a": str(a), "b": str(b)}
    if rng.random() < 0.25:
        return ask(rng, rng.choice(VERBS[kind]), slots)
    sign = rng.choice(SIGNS[kind]) if not spelled else rng.choice([s for s in SIGNS[kind] if s.islower() and " " in s])
    return ask(rng, rng.choice(FRAMES), {"e": sign.format_map(slots)})


def item(kind: str, a: int, b: int, user: str) -> str:
    """The key of a pair; small pairs are facts, so their wording belongs to the item."""
    low, high = (min(a, b), max(a, b)) if kind in ("add", "multiply") else (a, b)
    small = high <= 12 if kind != "divide" else a <= 144
    return f"{kind}:{low}:{high}" + (f":{user}" if small else "")


def _size(rng: Random, digits: int) -> int:
    return rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)


def add(rng: Random) -> Turn:
    """a + b, mostly of two or three digits."""
    a, b = (_size(rng, rng.choices((1, 2, 3), (2, 5, 5))[0]) for _ in range(2))
    return added(worded(rng, "add", a, b), a, b)


def added(user: str, a: int, b: int) -> Turn:
    return Turn("add", user, f"{a} + {b} = {a + b}.", item("add", a, b, user), result=a + b)


def subtract(rng: Random) -> Turn:
    """a - b, sometimes below zero."""
    a, b = (_size(rng, rng.choices((1, 2, 3), (2, 5, 5))[0]) for _ in range(2))
    if a < b and rng.random() < 0.85:
        a, b = b, a
    return subtracted(worded(rng, "subtract", a, b), a, b)


def subtracted(user: str, a: int, b: int) -> Turn:
    return Turn("subtract", user, f"{a} - {b} = {a - b}.", item("subtract", a, b, user), result=a - b)


def product(a: int, b: int) -> str:
    """``a × b`` with the steps a person would write down."""
    if max(a, b) <= 12 or min(a, b) <= 1 or a % 10 == 0 or b % 10 == 0:
        return f"{a} × {b} = {a * b}."
    if min(a, b) < 10:
        big, small = max(a, b), min(a, b)
        tens, ones = big // 10 * 10, big % 10
        return f"{a} × {b} = {small} × {tens} + {small} × {ones} = {small * tens} + {small * ones} = {a * b}."
    tens, ones = b // 10 * 10, b % 10
    return f"{a} × {b} = {a} × {tens} + {a} × {ones} = {a * tens} + {a * ones} = {a * b}."


def multiply(rng: Random) -> Turn:
    """The times table, one digit by two, or two by two."""
    kind = rng.choices(("table", "one", "two"), (3, 4, 3))[0]
    if kind == "table":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
    else:
        a, b = rng.randint(2, 9) if kind == "one" else rng.randint(11, 99), rng.randint(10, 99)
    a, b = (b, a) if rng.random() < 0.5 else (a, b)
    return multiplied(worded(rng, "multiply", a, b), a, b)


def multiplied(user: str, a: int, b: int) -> Turn:
    return Turn("multiply", user, product(a, b), item("multiply", a, b, user), result=a * b)


def divide(rng: Random) -> Turn:
    """Division by one digit (or up to 12), mostly without remainder, at times by zero."""
    b = rng.randint(2, 12)
    quotient = rng.randint(1, 12) if rng.random() < 0.6 else rng.randint(2, 60)
    a = b * quotient + (rng.randrange(b) if rng.random() < 0.3 else 0)
    b = 0 if rng.random() < 0.02 else b
    user = worded(rng, "divide", a, b)
    return Turn("divide", user, quotient_text(a, b), item("divide", a, b, user), result=a // b if b else None)


def quotient_text(a: int, b: int) -> str:
    """``a ÷ b`` with its remainder, if there is one."""
    if b == 0:
        return "A number cannot be divided by zero."
    rest = f" remainder {a % b}" if a % b else ""
    return f"{a} ÷ {b} = {a // b}{rest}."


CHAINS = ("What is {e}?", "{e}", "What's {e}?", "Calculate {e}.", "{e} = ?", "Compute {e}.", "How much is {e}?")


def chain(rng: Random) -> Turn:
    """Three small numbers added or taken away, one step at a time."""
    a, b, c = (rng.randint(1, 60) for _ in range(3))
    minus = rng.random() < 0.3 and a + b >= c
    total = a + b - c if minus else a + b + c
    sign = "-" if minus else "+"
    expression = f"{a} + {b} {sign} {c}"
    asked = expression if rng.random() < 0.6 else expression.replace(" ", "")
    user = ask(rng, rng.choice(CHAINS), {"e": asked})
    return Turn("chain", user, f"{expression} = {a + b} {sign} {c} = {total}.", f"chain:{expression}", result=total)


SIMPLE = {
    "double": ("Double {n}.", "What is double {n}?", "What is twice {n}?", "What is the double of {n}?"),
    "half": ("What is half of {n}?", "Half of {n}?", "Halve {n}.", "What's half of {n}?"),
    "square": ("What is {n} squared?", "Square {n}.", "What is the square of {n}?", "{n}^2", "What is {n}²?"),
}


def simple(rng: Random) -> Turn:
    """Doubles, halves and squares."""
    kind = rng.choice(tuple(SIMPLE))
    n = rng.randint(0, 20) if kind == "square" else rng.randint(1, 50) * (2 if kind == "half" else 1)
    user = ask(rng, rng.choice(SIMPLE[kind]), {"n": n})
    answer, value = {
        "double": (f"2 × {n} = {2 * n}.", 2 * n),
        "half": (f"{n} ÷ 2 = {n // 2}.", n // 2),
        "square": (f"{n} × {n} = {n * n}.", n * n),
    }[kind]
    return Turn("simple", user, answer, f"{kind}:{n}:{user}", result=value)


MORE = (
    "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
    "{name} has {a} {things}. A friend gives {name} {b} more. How many {things} does {name} have?",
    "There are {a} {things} in a box and {name} adds {b}. How many {things} does {name} have now?",
    "If {name} has {a} {things} and finds {b} more, how many {things} does {name} have?",
)
FEWER = (
    "{name} has {a} {things} and gives away {b}. How many {things} does {name} have now?",
    "{name} had {a} {things} and lost {b} of them. How many {things} does {name} have left?",
    "If {name} has {a} {things} and sells {b}, how many {things} does {name} have left?",
    "{name} buys {a} {things} and eats {b}. How many {things} are left?",
)


def word_problem(rng: Random) -> Turn:
    """A sum or a difference told as a small scene."""
    name, things = rng.choice(FIRST_NAMES), rng.choice(THINGS)
    a, b = rng.randint(2, 99), rng.randint(2, 50)
    more = rng.random() < 0.5
    a, b = (a, b) if more else (max(a, b) + 2, min(a, b))
    total = a + b if more else a - b
    slots = {"name": name, "things": things, "a": a, "b": b}
    user = ask(rng, rng.choice(MORE if more else FEWER), slots)
    sign = "+" if more else "-"
    answer = f"{a} {sign} {b} = {total}, so {name} has {total} {things}."
    return Turn("word_problem", user, answer, item("add" if more else "subtract", a, b, user), result=total)
