"""Long text as people paste it: prose, log lines, code, tables. It means nothing and only has to look the part."""

from __future__ import annotations

from random import Random

from training.curriculum import topics
from training.curriculum.tables import FIRST_NAMES, VOCABULARY
from training.curriculum.words import pseudo_word


def pasted(rng: Random) -> str:
    """A text as people paste it: prose, log lines, code, tables, data. Sometimes hundreds of words long."""
    length = rng.choice((12, 20, 40, 40, 80, 120, 250, 400))
    return rng.choice((_prose, _prose, _prose, _log, _source, _data, _again_and_again, _again_and_again, _figures))(rng, length)


def _prose(rng: Random, length: int) -> str:
    glue = "the of and to in is was that for with as on by at from this it are be not we they have which when can would".split()
    invented = rng.random() * 0.7
    words: list[str] = []
    for _ in range(length):
        draw = rng.random()
        words.append(rng.choice(glue) if draw < 0.45 else pseudo_word(rng) if draw < 0.45 + 0.55 * invented else _content(rng))
        if rng.random() < 0.09:
            words[-1] += rng.choice((".", ".", ",", ";", ".\n", ":"))
    return " ".join(words)


def _content(rng: Random) -> str:
    return rng.choice(
        (rng.choice(VOCABULARY), rng.choice(topics.TOPICS), rng.choice(topics.THINGS), rng.choice(FIRST_NAMES), str(rng.randint(1, 2030)))
    )


def _log(rng: Random, length: int) -> str:
    return "\n".join(
        f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d} {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d} "
        f"{rng.choice(('INFO', 'ERROR', 'WARN', 'DEBUG'))} {pseudo_word(rng)}: {rng.choice(topics.VERBS)} {rng.choice(topics.THINGS)} {rng.randint(0, 999)}"
        for _ in range(max(1, length // 12))
    )


def _source(rng: Random, length: int) -> str:
    lines = (
        "def {w}({v}):",
        "    return {v} + {n}",
        "for {w} in range({n}):",
        "    print({v})",
        "import {w}",
        "if ({w} == {n}) {{",
        "}}",
        "const {w} = {n};",
        "SELECT {w} FROM {v} WHERE id = {n};",
        '<div class="{w}">{v}</div>',
        "{w}.{v}({n})",
        "int {w} = {n};",
        "# {w} {v}",
        "function {w}({v}) {{",
    )
    return "\n".join(
        rng.choice(lines).format(w=pseudo_word(rng), v=rng.choice(VOCABULARY), n=rng.randint(0, 99)) for _ in range(max(1, length // 9))
    )


def _data(rng: Random, length: int) -> str:
    sign = rng.choice((", ", " | ", "\t", ";"))
    rows = (
        sign.join((rng.choice(FIRST_NAMES), pseudo_word(rng), str(rng.randint(0, 9999)), rng.choice(VOCABULARY)))
        for _ in range(max(1, length // 10))
    )
    return rng.choice(("\n", "\n", " ")).join(rows)


def _again_and_again(rng: Random, length: int) -> str:
    """One word, sentence or sign over and over."""
    unit = rng.choice((_content(rng), "the", "hello", "word", "test", "a", "la", pseudo_word(rng), "x y", _prose(rng, rng.randint(3, 12))))
    times = max(8, length // max(1, len(unit.split())))
    return rng.choice((" ", " ", " ", ", ", ". ", "\n")).join([unit] * times)


def _figures(rng: Random, length: int) -> str:
    return " ".join(str(rng.randint(0, 10 ** rng.randint(1, 6))) for _ in range(max(10, length // 4)))
