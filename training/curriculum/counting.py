"""Letters, words and items: how many there are, how a word is spelled, what it is backwards."""

from __future__ import annotations

from random import Random

from training.curriculum.phrasing import ask, listing
from training.curriculum.tables import ANIMALS, COLORS, FIRST_NAMES, FOODS, OBJECTS, VOCABULARY
from training.curriculum.turn import Turn
from training.curriculum.words import pseudo_word

WORDS = tuple(w for w in VOCABULARY if 2 <= len(w) <= 11)


def any_word(rng: Random) -> str:
    """A word of the lists, or now and then an invented one, so that spelling does not rest on knowing it."""
    return rng.choice(WORDS) if rng.random() < 0.75 else pseudo_word(rng)


def _quoted(rng: Random, word: str) -> str:
    return rng.choice(("{}", "{}", "'{}'", '"{}"', "the word {}", "the word '{}'")).format(word)


SPELL = ("Spell {w}.", "How do you spell {w}?", "Spell {w} letter by letter.", "Can you spell {w}?")
REVERSE = ("Reverse {w}.", "Spell {w} backwards.", "What is {w} backwards?", "Write {w} in reverse.")


def spell(rng: Random) -> Turn:
    """A word letter by letter, forwards or backwards."""
    word = any_word(rng)
    back = rng.random() < 0.35
    user = ask(rng, rng.choice(REVERSE if back else SPELL), {"w": _quoted(rng, word)})
    letters = "-".join(word)
    answer = f"{letters} backwards is {word[::-1]}." if back else f"{letters}"
    return Turn("spell", user, answer, f"spell:{word}")


LENGTH = (
    "How many letters are in {w}?",
    "How many letters does {w} have?",
    "Count the letters in {w}.",
    "How long is {w}?",
    "Number of letters in {w}?",
    "How many characters are in {w}?",
)


def count_letters(rng: Random) -> Turn:
    """The length of a word, after spelling it."""
    word = any_word(rng)
    user = ask(rng, rng.choice(LENGTH), {"w": _quoted(rng, word)})
    return Turn("count_letters", user, f"{'-'.join(word)} has {len(word)} letters.", f"letters:{word}", result=len(word))


OCCURRENCES = (
    "How many {c}'s are in {w}?",
    "How many times does {c} appear in {w}?",
    "How many {c} are in {w}?",
    "Count the letter {c} in {w}.",
    "How many {c}s in {w}?",
    "How often is the letter {c} in {w}?",
    "How many letters {c} does {w} have?",
    "How many of the letter {c} are there in {w}?",
)


def count_letter(rng: Random) -> Turn:
    """How often one letter occurs in a word, after spelling it."""
    word = any_word(rng)
    letter = rng.choice(word) if rng.random() < 0.8 else rng.choice("abcdefghijklmnoprstuvwy")
    shown = letter.upper() if rng.random() < 0.2 else f"'{letter}'" if rng.random() < 0.2 else letter
    user = ask(rng, rng.choice(OCCURRENCES), {"c": shown, "w": _quoted(rng, word)})
    n = word.count(letter)
    times = "time" if n == 1 else "times"
    answer = f"{'-'.join(word)} has the letter {letter} {n} {times}."
    return Turn("count_letter", user, answer, f"letter:{letter}:{word}", result=n)


SENTENCE_WORDS = (
    "How many words are in this sentence: {s}",
    "Count the words: {s}",
    "How many words are in '{s}'?",
    'How many words does "{s}" have?',
    "Count the words in this sentence: {s}",
    "Word count of: {s}",
)


def sentence(rng: Random, length: int) -> str:
    """``length`` words in a row, plausible from afar."""
    pattern = (
        "the",
        rng.choice(COLORS),
        rng.choice(ANIMALS),
        rng.choice(("sees", "likes", "finds", "takes")),
        "a",
        rng.choice(OBJECTS),
        "and",
        "the",
        rng.choice(FOODS),
        "with",
        rng.choice(FIRST_NAMES),
        "today",
    )
    start = rng.randrange(len(pattern) - 2) if rng.random() < 0.3 else 0
    chosen = [*pattern[start:], *(rng.choice(VOCABULARY) for _ in range(length))][:length]
    return " ".join(chosen)


def count_words(rng: Random) -> Turn:
    """The number of words in a sentence, numbering them on the way."""
    words = sentence(rng, rng.randint(2, 10)).split()
    text = " ".join(words)
    shown = text[0].upper() + text[1:] + rng.choice(("", "."))
    user = ask(rng, rng.choice(SENTENCE_WORDS), {"s": shown})
    steps = " ".join(f"{i} {word}" for i, word in enumerate(words, start=1))
    return Turn("count_words", user, f"{steps}: {len(words)} words.", f"words:{text}", result=len(words))


ITEMS = (
    "How many items are in this list: {s}",
    "How many things are there: {s}?",
    "Count these: {s}",
    "How many items: {s}",
    "Count the items: {s}",
    "How many are in the list {s}?",
)


def count_items(rng: Random) -> Turn:
    """The number of entries in a list, numbering them on the way."""
    words = rng.sample(rng.choice((ANIMALS, FOODS, OBJECTS, COLORS)), rng.randint(2, 9))
    user = ask(rng, rng.choice(ITEMS), {"s": listing(words) if rng.random() < 0.4 else ", ".join(words)})
    steps = " ".join(f"{i} {word}" for i, word in enumerate(words, start=1))
    return Turn("count_items", user, f"{steps}: {len(words)} items.", f"items:{words}", result=len(words))
