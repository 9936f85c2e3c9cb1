"""Comparing, sorting and naming numbers, and putting words into order."""

from __future__ import annotations

from random import Random

from training.curriculum.numerals import in_words
from training.curriculum.phrasing import ask
from training.curriculum.tables import VOCABULARY
from training.curriculum.turn import Turn

BIGGER = (
    "Which is bigger, {a} or {b}?",
    "Which number is larger, {a} or {b}?",
    "What is greater, {a} or {b}?",
    "Which is more, {a} or {b}?",
    "{a} or {b}, which is bigger?",
    "Which one is higher: {a} or {b}?",
    "Is {a} or {b} bigger?",
    "Compare {a} and {b}.",
    "Which of {a} and {b} is larger?",
)
SMALLER = (
    "Which is smaller, {a} or {b}?",
    "Which number is less, {a} or {b}?",
    "What is lower, {a} or {b}?",
    "{a} or {b}, which is smaller?",
    "Is {a} or {b} smaller?",
    "Which of {a} and {b} is the smaller one?",
)
IS_MORE = (
    "Is {a} bigger than {b}?",
    "Is {a} greater than {b}?",
    "Is {a} more than {b}?",
    "Is {a} larger than {b}?",
    "{a} > {b}?",
    "Is it true that {a} is bigger than {b}?",
)
IS_LESS = ("Is {a} smaller than {b}?", "Is {a} less than {b}?", "Is {a} lower than {b}?", "{a} < {b}?")


def _number(rng: Random) -> int:
    return rng.randint(0, 10 ** rng.choice((1, 2, 2, 3, 3)) - 1)


def _near(rng: Random, a: int) -> int:
    """Another number, often one that differs from ``a`` in a single place."""
    if rng.random() < 0.5:
        return _number(rng)
    return max(0, min(999, a + rng.choice((-100, -10, -9, -2, -1, 1, 2, 9, 10, 90, 100))))


def _relation(a: int, b: int) -> str:
    return "bigger than" if a > b else "smaller than" if a < b else "equal to"


def compare(rng: Random) -> Turn:
    """Which of two numbers is bigger or smaller, or whether one is."""
    a = _number(rng)
    b = _near(rng, a)
    template, kind = rng.choice([(t, k) for k, group in enumerate((BIGGER, SMALLER, IS_MORE, IS_LESS)) for t in group])
    user = ask(rng, template, {"a": a, "b": b})
    return Turn("compare", user, compared(kind, a, b), f"compare:{min(a, b)}:{max(a, b)}")


def compared(kind: int, a: int, b: int) -> str:
    """The answer; ``kind`` is 0 bigger, 1 smaller, 2 is-more, 3 is-less."""
    if a == b:
        return f"{a} and {b} are equal." if kind < 2 else f"No, {a} and {b} are equal."
    if kind < 2:
        first, second = (max(a, b), min(a, b)) if kind == 0 else (min(a, b), max(a, b))
        return f"{first} is {_relation(first, second)} {second}."
    yes = (a > b) == (kind == 2)
    return f"{'Yes' if yes else 'No'}, {a} is {_relation(a, b)} {b}."


UPWARD = (
    "Sort {items}.",
    "Sort these numbers: {items}",
    "Put {items} in order.",
    "Sort {items} in ascending order.",
    "Order these from smallest to largest: {items}",
    "Arrange {items} from low to high.",
    "sort: {items}",
    "Can you sort {items}?",
    "Sort the list {items}",
    "Sort [{items}]",
    "Order these numbers: {items}",
)
DOWNWARD = (
    "Sort {items} in descending order.",
    "Sort these from largest to smallest: {items}",
    "Order {items} from high to low.",
    "Sort {items} from biggest to smallest.",
    "Put these numbers in reverse order of size: {items}",
)


def sort_numbers(rng: Random) -> Turn:
    """Three to six different numbers put in order."""
    numbers = rng.sample(range(100) if rng.random() < 0.7 else range(1000), rng.randint(3, 6))
    down = rng.random() < 0.3
    items = rng.choice((", ", ", ", ", ", " ", ",")).join(map(str, numbers))
    user = ask(rng, rng.choice(DOWNWARD if down else UPWARD), {"items": items})
    answer = ", ".join(map(str, sorted(numbers, reverse=down)))
    return Turn("sort_numbers", user, answer, f"sort:{sorted(numbers)}")


ALPHABETICAL = (
    "Sort these words: {items}",
    "Sort {items} alphabetically.",
    "Put {items} in alphabetical order.",
    "Sort these words alphabetically: {items}",
    "Alphabetize: {items}",
    "Sort: {items}",
    "Sort {items}.",
    "Order these words from A to Z: {items}",
    "Can you put {items} in alphabetical order?",
)


def sort_words(rng: Random) -> Turn:
    """Three to five words put in alphabetical order."""
    words = rng.sample(VOCABULARY, rng.randint(3, 5))
    user = ask(rng, rng.choice(ALPHABETICAL), {"items": rng.choice((", ", ", ", " ")).join(words)})
    return Turn("sort_words", user, ", ".join(sorted(words)), f"sort_words:{sorted(words)}")


EXTREMES = {
    max: (
        "What is the largest of {items}?",
        "Which is the biggest number: {items}?",
        "Find the maximum of {items}.",
        "What is the highest number in {items}?",
        "Largest number in {items}?",
        "max of {items}",
    ),
    min: (
        "What is the smallest of {items}?",
        "Which is the smallest number: {items}?",
        "Find the minimum of {items}.",
        "What is the lowest number in {items}?",
        "Smallest number in {items}?",
        "min of {items}",
    ),
}


def extreme(rng: Random) -> Turn:
    """The largest or the smallest of a few numbers."""
    numbers = rng.sample(range(100) if rng.random() < 0.7 else range(1000), rng.randint(3, 6))
    pick = rng.choice((max, min))
    user = ask(rng, rng.choice(EXTREMES[pick]), {"items": ", ".join(map(str, numbers))})
    word = "largest" if pick is max else "smallest"
    return Turn("extreme", user, f"The {word} number is {pick(numbers)}.", f"extreme:{sorted(numbers)}")


PARITY = {
    "even": ("Is {n} even?", "Is {n} an even number?", "Is the number {n} even?"),
    "odd": ("Is {n} odd?", "Is {n} an odd number?"),
    "either": ("Is {n} even or odd?", "Is {n} odd or even?", "Odd or even: {n}?"),
}


def parity(rng: Random) -> Turn:
    """Even or odd."""
    n, asked = rng.randint(0, 999), rng.choice(tuple(PARITY))
    truth = "odd" if n % 2 else "even"
    start = "" if asked == "either" else "Yes, " if asked == truth else "No, "
    return Turn("parity", ask(rng, rng.choice(PARITY[asked]), {"n": n}), f"{start}{n} is {truth}.", f"parity:{n}")


TO_WORDS = (
    "Write {n} in words.",
    "How do you spell {n}?",
    "Spell out the number {n}.",
    "{n} in words",
    "Say {n} in words.",
    "Write the number {n} as words.",
    "What is {n} in words?",
)
TO_DIGITS = (
    "Write {n} in digits.",
    "Write {n} as a number.",
    "{n} in digits",
    "What is {n} as a number?",
    "Write the number {n} in figures.",
)


def naming(rng: Random) -> Turn:
    """Numbers to words and back."""
    n = rng.randint(0, 99) if rng.random() < 0.5 else rng.randint(100, 999)
    words = in_words(n)
    if rng.random() < 0.6:
        return Turn("naming", ask(rng, rng.choice(TO_WORDS), {"n": n}), f"{n} in words is {words}.", f"naming:{n}")
    user = ask(rng, rng.choice(TO_DIGITS), {"n": words})
    return Turn("naming", user, f"{words[0].upper()}{words[1:]} is {n}.", f"naming:{n}", result=n)


UP = (
    "Count from {a} to {b}.",
    "Count from {a} to {b}",
    "Count up from {a} to {b}.",
    "List the numbers from {a} to {b}.",
    "Can you count from {a} to {b}?",
)
TO = ("Count to {b}.", "Can you count to {b}?", "Please count to {b}.", "Count up to {b}.")
DOWN = ("Count down from {b}.", "Count down from {b} to {a}.", "Count backwards from {b} to {a}.")


def count_up(rng: Random) -> Turn:
    """Counting aloud over a short range, up or down."""
    kind = rng.choice(("up", "to", "down"))
    a = rng.randint(2, 80) if kind == "up" else 1
    b = a + rng.randint(2, 12) if kind == "up" else rng.randint(3, 20)
    numbers = list(range(a, b + 1))
    template = rng.choice({"up": UP, "to": TO, "down": DOWN}[kind])
    answer = ", ".join(map(str, reversed(numbers) if kind == "down" else numbers)) + "."
    return Turn("count_up", ask(rng, template, {"a": a, "b": b}), answer, f"count:{a}:{b}:{template}")
