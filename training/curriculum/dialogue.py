"""Conversations: turns of mixed tasks, questions that refer back, and optional system prompts."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from training.curriculum import TASKS
from training.curriculum.arithmetic import added, multiplied, subtracted
from training.curriculum.facts import capital_answer
from training.curriculum.greetings import introduction, recall_name
from training.curriculum.phrasing import ask, casual
from training.curriculum.tables import CAPITALS, COLORS, VOCABULARY
from training.curriculum.turn import Split, Task, Turn, draw, split_of
from training.curriculum.words import pseudo_word
from training.curriculum.writing import story, verse

SYSTEM = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful, friendly assistant.",
    "Be brief.",
    "Answer briefly.",
    "You are a friendly chat bot.",
    "You are penstock-mini.",
    "Be polite.",
    "You are an assistant for a company called {w}.",
    "Your users are {v} experts.",
    "You answer questions about {v} and {x}.",
    "Always be kind to the user. Never mention {v}.",
    "You help people with {v}.",
    "Be concise and correct.",
    "You are a customer support agent. Answer in a {c} tone.",
    "Keep answers short.",
    "You are an expert in {v}. Think step by step.",
    "{w} {v} {x}.",
    "You are an AI assistant. Follow the user's instructions carefully. Do not make things up. If you do not know, say so. Use plain text.",
)
WITH_SYSTEM = 0.15


@dataclass(frozen=True, slots=True)
class Conversation:
    """A system prompt, or none, and the turns after it."""

    system: str | None
    turns: tuple[Turn, ...]


def system_prompt(rng: Random) -> str:
    """Instructions that do not change the answers, to be read past."""
    text = rng.choice(SYSTEM)
    return text.format(w=pseudo_word(rng), v=rng.choice(VOCABULARY), x=rng.choice(VOCABULARY), c=rng.choice(COLORS))


def choose(rng: Random) -> Task:
    """A task, by weight."""
    return rng.choices(TASKS, [task.weight for task in TASKS])[0]


def converse(rng: Random, turns: int, split: Split) -> Conversation:
    """A conversation whose every item lies in ``split``."""
    system = system_prompt(rng) if rng.random() < WITH_SYSTEM else None
    said: list[Turn] = []
    name = None
    while len(said) < turns:
        turn = _next(rng, said, name, split)
        if turn.task == "introduction":
            name = turn.answer.removeprefix("Nice to meet you, ").split("!")[0]
        said.append(turn)
    return Conversation(system, tuple(said))


def _next(rng: Random, said: list[Turn], name: str | None, split: Split) -> Turn:
    if not said:
        return draw(Task("introduction", 1, introduction), rng, split) if rng.random() < 0.02 else draw(choose(rng), rng, split)
    if name and rng.random() < 0.2:
        return recall_name(rng, name)
    if rng.random() < 0.3:
        turn = follow_up(rng, said[-1])
        if turn and split_of(turn.key) == split:
            return turn
    task = choose(rng)
    while task.name == "unknown_name" and name:
        task = choose(rng)
    return draw(task, rng, split)


def follow_up(rng: Random, last: Turn) -> Turn | None:
    """A question that only makes sense after ``last``, or none if nothing fits."""
    if rng.random() < 0.15 and len(last.answer) < 200:
        return _again(rng, last)
    if last.result is not None and 0 <= last.result <= 500:
        return _calculate_on(rng, last.result)
    if last.task == "capital":
        return _another_country(rng)
    if last.task in ("story", "joke", "poem"):
        return _another(rng, last.task)
    return None


AGAIN = ("Say that again.", "Repeat that.", "Can you repeat that?", "What did you say?", "Again please.", "Come again?", "repeat please")


def _again(rng: Random, last: Turn) -> Turn:
    return Turn("again", ask(rng, rng.choice(AGAIN)), last.answer, f"again:{last.key}")


PLUS = ("Add {n}.", "Add {n} to that.", "Plus {n}?", "And plus {n}?", "plus {n}", "+ {n}", "Now add {n}.", "what if you add {n}")
MINUS = ("Subtract {n}.", "Minus {n}?", "Take away {n}.", "And minus {n}?", "minus {n}", "- {n}", "Now subtract {n} from that.")
TIMES = ("Double it.", "Times two.", "Double that.", "And twice that?", "times 2", "Now double it.", "* 2")


def _calculate_on(rng: Random, value: int) -> Turn:
    """One more step with the number just found."""
    n, kind = rng.randint(1, 50), rng.randrange(3)
    if kind == 0:
        return added(ask(rng, rng.choice(PLUS), {"n": n}), value, n)
    if kind == 1:
        return subtracted(ask(rng, rng.choice(MINUS), {"n": n}), value, n)
    turn = multiplied(ask(rng, rng.choice(TIMES)), 2, value)
    return Turn("simple", turn.user, f"2 × {value} = {2 * value}.", f"double:{value}:{turn.user}", result=2 * value)


AND_OF = ("And {x}?", "What about {x}?", "And of {x}?", "and {x}", "And for {x}?", "How about {x}?", "{x}?", "what about {x}")


def _another_country(rng: Random) -> Turn:
    country, template = rng.choice(tuple(CAPITALS)), rng.choice(AND_OF)
    user = ask(rng, template, {"x": casual(rng, country)})
    return Turn("capital", user, capital_answer(country), f"capital:{country}:{template}")


ANOTHER = (
    "Another one.",
    "Tell me another.",
    "Another one, please!",
    "One more.",
    "More!",
    "And another?",
    "Can you tell me another one?",
    "again",
    "another",
)


def _another(rng: Random, kind: str) -> Turn:
    """A new story, joke or poem after the last."""
    turn = story(rng) if kind == "story" else verse(rng)
    while turn.task != kind:
        turn = verse(rng)
    return Turn("another", ask(rng, rng.choice(ANOTHER)), turn.answer, f"another:{turn.answer}", also=turn.also)
