"""What two questions that an embedding takes for one must not share: an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.minimal_pairs import template_pairs
from penstock.cache.reading import read, stem
from penstock.cache.verify import differences

DIFFERENT = [
    # kind, asked, stored
    ("number", "How many calories are in 3 eggs?", "How many calories are in 5 eggs?"),
    ("number", "What happened in 1912?", "What happened in 1921?"),
    ("number", "How do I upgrade to version 3.11?", "How do I upgrade to version 3.12?"),
    ("number", "What can a family of two cook?", "What can a family of seven cook?"),
    ("number", "Is 20 km far?", "Is 20 miles far?"),
    ("number", "What is $5 in yen?", "What is €5 in yen?"),
    ("number", "Who won World War II?", "Who won World War I?"),
    ("number", "Which phones cost 15k?", "Which phones cost 20k?"),
    ("negation", "Is it safe to eat raw eggs?", "Is it not safe to eat raw eggs?"),
    ("negation", "Why does my car start?", "Why doesn't my car start?"),
    ("negation", "How do I cook with salt?", "How do I cook without salt?"),
    ("negation", "How can I gain weight?", "How can I avoid gaining weight?"),
    ("opposite", "What is the best way to learn?", "What is the worst way to learn?"),
    ("opposite", "How do I increase my blood pressure?", "How do I decrease my blood pressure?"),
    ("opposite", "Should I stretch before running?", "Should I stretch after running?"),
    ("opposite", "Where can I buy gold?", "Where can I sell gold?"),
    ("opposite", "Is it legal to fish here?", "Is it illegal to fish here?"),
    ("opposite", "How do I install the driver?", "How do I uninstall the driver?"),
    ("order", "How do I convert miles to leagues?", "How do I convert leagues to miles?"),
    ("order", "flights from New York to Los Angeles", "flights from Los Angeles to New York"),
    ("order", "Do dogs chase cats?", "Do cats chase dogs?"),
    ("order", "Why is tea better than coffee?", "Why is coffee better than tea?"),
    ("name", "What is the capital of France?", "What is the capital of Spain?"),
    ("name", "How do I lose weight?", "How do I lose weight in India?"),
    ("code", "How do I sort a list in python?", "How do I sort a list in rust?"),
    ("code", "What does a == b do?", "What does a != b do?"),
    ("code", "What does read_csv do?", "What does to_csv do?"),
    ("time", "What is open on Monday?", "What is open on Friday?"),
    ("time", "What can I plant in march or april?", "What can I plant in october?"),
    ("question", "When did they build the tower?", "Who built the tower?"),
    ("question", "Why do cats purr?", "How do cats purr?"),
    ("question", "How many people live there?", "Why do people live there?"),
    ("words", "wie koche ich reis im topf?", "wie koche ich nudeln im topf?"),
    ("words", "Где живут медведи?", "Где живут волки?"),
    ("words", "東京の人口は", "大阪の人口は"),
]

SAME = [
    ("How do I sort a list in Java?", "In Java, how do I sort a list?"),
    ("What is 5 km in metres?", "What is five kilometers in metres?"),
    ("How do I cook rice with no salt?", "How do I cook rice without salt?"),
    ("What is the population of the USA?", "what is the population of the United States of America"),
    ("What's the difference between tea and coffee?", "What is the difference between coffee and tea?"),
    ("Can't I eat eggs?", "Can I not eat eggs?"),
    ("How can I learn Python?", "how do you learn python"),
    ("How do I pass the SY0-401 exam?", "How can I pass the SY0-401 exam?"),
    ("What is the reason for rain?", "Why is there rain?"),
    ("What are 1,500 grams in pounds?", "What are 1500 g in lbs?"),
    ("Did the dog bite the man?", "Was the man bitten by the dog?"),
]


@pytest.mark.parametrize(("kind", "asked", "stored"), DIFFERENT)
def test_what_asks_for_another_answer_is_told_apart_either_way_round(kind: str, asked: str, stored: str) -> None:
    for one, other in ((asked, stored), (stored, asked)):
        assert any(reason.startswith(kind) for reason in differences(one, other)), differences(one, other)


@pytest.mark.parametrize(("asked", "stored"), SAME)
def test_what_asks_for_the_same_answer_is_let_through(asked: str, stored: str) -> None:
    assert differences(asked, stored) == ()
    assert differences(stored, asked) == ()


@given(st.text(max_size=200))
def test_any_text_is_the_same_as_itself(text: str) -> None:
    assert differences(text, text) == ()


@given(st.text(max_size=120), st.text(max_size=120))
def test_whether_texts_differ_does_not_depend_on_which_was_stored(one: str, other: str) -> None:
    assert bool(differences(one, other)) == bool(differences(other, one))


@given(st.text(alphabet="абвгджзик лмноп", min_size=1, max_size=30), st.text(alphabet="абвгджзик лмноп", min_size=1, max_size=30))
def test_in_another_script_every_word_counts(one: str, other: str) -> None:
    if sorted(set(one.split())) != sorted(set(other.split())):
        assert differences(one, other)


def test_the_words_of_other_languages_are_not_taken_for_english() -> None:
    assert read("How do I get to the station?").english
    assert not read("Wie komme ich zum Bahnhof?").english


@pytest.mark.parametrize(
    ("one", "other"), [("cities", "city"), ("running", "run"), ("boxes", "box"), ("bought", "buys"), ("loved", "loving")]
)
def test_forms_of_one_word_have_one_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


def test_every_minimal_pair_of_the_benchmarks_templates_is_told_apart_and_no_paraphrase() -> None:
    for pair in template_pairs():
        assert bool(differences(pair.text_b, pair.text_a)) is not pair.same, pair


def test_a_number_too_long_for_a_float_is_a_number() -> None:
    one, other = "9" * 400, "9" * 399 + "8"
    assert differences(f"Is {one} million prime?", f"Is {one} million prime?") == ()
    assert differences(f"Is {one} prime?", f"Is {other} prime?")


def test_a_name_that_is_there_twice_differs_from_nothing() -> None:
    assert differences("A'AA", "A'AA") == ()
