"""Texts of our own on everything, for the static encoder to learn from: what their words mean together is MiniLM's to say.

A third are frames that people ask and tell in, filled with topics and words; a third are turns of the curriculum; a third are words
in no order, so that every word of the vocabulary is met. Pairs that share all but a word or a frame come together, because telling
those apart is what an encoder is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from training.curriculum.dialogue import converse
from training.curriculum.topics import THINGS, TOPICS

FRAMES = """
what is {a}
what are {a}
what is the meaning of {a}
what does {a} mean
can you explain {a} to me
explain {a} in simple words
tell me about {a}
tell me something interesting about {a}
how does {a} work
how do I use {a}
how can I learn {a} quickly
how do I fix my {a}
how do I get rid of {a}
how much does {a} cost
how many {a} are there in {b}
how old is {a}
how long does {a} take
how do you make {a} with {b}
how do you get from {a} to {b}
why is {a} so {b}
why do people like {a}
why do people hate {a}
why did {a} leave {b}
why does my {a} not work with {b}
who is {a}
who invented {a}
who was the first to {a} {b}
who wrote {a}
where is {a}
where can I buy {a} near {b}
where do {a} come from
when was {a} founded
when did {a} begin
when should I {a} my {b}
which is better, {a} or {b}
which {a} is the best for {b}
what is the best {a} for {b}
what is the best way to {a}
what is the difference between {a} and {b}
what is the capital of {a}
what are the advantages of {a}
what are the disadvantages of {a}
what are some good {a} for {b}
what should I do if my {a} is {b}
what would happen if {a} met {b}
what is it like to be {a}
is {a} good for {b}
is {a} better than {b}
is it safe to {a} with {b}
is it possible to {a} without {b}
is there a way to {a} my {b}
are {a} and {b} the same
do {a} like {b}
does {a} cause {b}
did {a} really {b}
can I {a} a {b}
can {a} eat {b}
should I {a} or {b}
should {a} be allowed in {b}
I want to learn {a}, where should I start
I lost my {a}, what can I do
my {a} is {b}, please help
please write a {c} about {a}
write a short {c} on {a} and {b}
write a python function that sorts {a} by {b}
give me a list of {a}
give me five ideas for {a}
recommend a {a} for {b}
translate {a} into {b}
summarise the following text about {a}: {b} and {c}
compare {a} with {b}
{a} is {b}
{a} is not {b}
{a} was {b} by {c}
the {a} of {b} is {c}
the {a} {b} the {c}
the {a} did not {b} the {c}
a {a} and a {b} went to the {c}
{a} said that {b} would {c} next year
{a} said on Monday that the {b} had been {c}
shares of {a} rose by {b} percent after the {c}
the company said {a} would {b} its {c}
police said the {a} was found near the {b}
the {a} will be {b} in {c}
according to {a}, the {b} is {c}
there are {a} {b} in the {c}
most {a} in {b} are {c}
he bought {a} in {b} and sold it for {c}
she likes {a}, but he prefers {b}
we went to {a} to see the {b}
they have never {a} a {b}
nobody knows why {a} became {b}
if you {a} the {b}, it will {c}
first {a} the {b}, then {c} it
error: {a} not found in {b}
set {a} to {b} in the {c} settings
""".strip().splitlines()


def texts(rng: Random, words: Sequence[str]) -> Iterator[str]:
    """Without end. `words` are the vocabulary's, the frequent ones first."""
    while True:
        kind = rng.randrange(3)
        if kind == 0:
            yield from framed(rng, words)
        elif kind == 1:
            turn = converse(rng, 1, "train").turns[0]
            yield rng.choice((turn.user, turn.answer))
        else:
            yield " ".join(word(rng, words) for _ in range(rng.randint(1, 12)))


def framed(rng: Random, words: Sequence[str]) -> Iterator[str]:
    """A frame filled, and two near it: the same frame with a part changed, another frame with the same parts."""
    frame, other = rng.sample(FRAMES, 2)
    parts = {slot: part(rng, words) for slot in "abc"}
    yield frame.format(**parts)
    yield frame.format(**{**parts, rng.choice("ab"): part(rng, words)})
    yield other.format(**parts)


def part(rng: Random, words: Sequence[str]) -> str:
    """A topic, a thing, or one or two words."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(TOPICS)
    return rng.choice(THINGS) if kind == 1 else " ".join(word(rng, words) for _ in range(rng.choice((1, 1, 2))))


def word(rng: Random, words: Sequence[str]) -> str:
    """Half of them as frequent as words are (Zipf), half as if all were alike. The first, "the", is in the frames."""
    place = len(words) ** rng.random() if rng.random() < 0.5 else rng.uniform(1, len(words))
    return words[min(int(place), len(words) - 1)]
