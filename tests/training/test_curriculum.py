"""The curriculum: the same from the same seed, disjoint across the split, and right in what it teaches."""

from __future__ import annotations

import json
import re
from random import Random

import pytest

from training.curriculum import TASKS
from training.curriculum.decline import ALL_ANSWERS
from training.curriculum.dialogue import Conversation, converse
from training.curriculum.tables import CAPITALS, ELEMENTS
from training.curriculum.turn import Task, Turn, draw, split_of

BY_NAME = {task.name: task for task in TASKS}


def turns_of(name: str, count: int = 300) -> list[Turn]:
    rng = Random(name)
    return [BY_NAME[name].make(rng) for _ in range(count)]


def conversations(seed: int, split: str, count: int = 150) -> list[Conversation]:
    rng = Random(seed)
    return [converse(rng, rng.randint(1, 6), split) for _ in range(count)]  # type: ignore[arg-type]


def test_a_seed_makes_the_same_conversations() -> None:
    assert conversations(3, "train") == conversations(3, "train")
    assert conversations(3, "train") != conversations(4, "train")


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_turn_of_a_conversation_is_on_its_side_of_the_split(split: str) -> None:
    keys = [turn.key for c in conversations(0, split) for turn in c.turns if turn.task != "recall_name"]
    assert {split_of(key) for key in keys} == {split}


def test_operands_held_out_are_held_out_in_either_order() -> None:
    held = [draw(BY_NAME["add"], Random(n), "held_out") for n in range(50)]
    pairs = {tuple(sorted(map(int, re.findall(r"\d+", turn.answer)[:2]))) for turn in held}
    pairs = {pair for pair in pairs if pair[1] > 12}
    trained = {tuple(sorted(map(int, re.findall(r"\d+", draw(BY_NAME["add"], Random(n), "train").answer)[:2]))) for n in range(3000)}
    assert pairs and not pairs & trained


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_grades_its_own_answer_right_and_noise_wrong(task: Task) -> None:
    for turn in (task.make(Random(n)) for n in range(50)):
        assert turn.user.strip() and turn.answer.strip()
        assert task.grade(turn, turn.answer)
        assert not task.grade(turn, "xyzzy")


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "chain", "simple"])
def test_both_sides_of_every_equation_agree(name: str) -> None:
    for turn in turns_of(name):
        values = {eval(side.replace("×", "*").replace("÷", "//")) for side in turn.answer.rstrip(".").split(" = ")}
        assert values == {turn.result}, turn


def test_a_quotient_times_its_divisor_and_the_rest_is_the_dividend() -> None:
    for turn in turns_of("divide"):
        if turn.result is not None:
            a, b, quotient, *rest = map(int, re.findall(r"\d+", turn.answer))
            assert a == b * quotient + sum(rest) and quotient == turn.result


def test_comparisons_are_true() -> None:
    for turn in turns_of("compare"):
        a, b = map(int, re.findall(r"\d+", turn.answer))
        said = "bigger" in turn.answer, "smaller" in turn.answer, "equal" in turn.answer
        assert said == (a > b, a < b, a == b)


def test_sorted_numbers_are_those_of_the_question_in_order() -> None:
    for turn in turns_of("sort_numbers"):
        numbers = list(map(int, turn.answer.split(", ")))
        assert sorted(numbers) == sorted(map(int, re.findall(r"\d+", turn.user)))
        assert numbers in (sorted(numbers), sorted(numbers, reverse=True))


def test_letters_are_counted_right() -> None:
    for turn in turns_of("count_letter"):
        letters, letter, n = re.fullmatch(r"([a-z-]+) has the letter (.) (\d+) times?", turn.answer.rstrip(".")).groups()  # type: ignore[union-attr]
        assert letters.split("-").count(letter) == int(n) == turn.result


def test_counted_words_are_those_of_the_sentence() -> None:
    for turn in turns_of("count_words"):
        assert turn.answer.endswith(f": {turn.result} words.") and f"{turn.result} " in turn.answer.split(":")[0]


def test_conversions_agree_with_the_factor_of_their_units() -> None:
    metric = {"kilometers": 1000.0, "meters": 1.0, "centimeters": 0.01, "millimeters": 0.001}
    for turn in turns_of("convert", 600):
        n, source, m, target = re.match(r"(\d+) (\w+) (?:is|are) (\d+) (\w+)", turn.answer).groups()  # type: ignore[union-attr]
        if source in metric and target in metric:
            assert int(n) * metric[source] == pytest.approx(int(m) * metric[target])


def test_the_answer_to_a_passage_is_in_it_or_said_to_be_missing() -> None:
    for turn in turns_of("find"):
        assert turn.answer == "The text does not say." or turn.answer in turn.user
    for turn in turns_of("read"):
        fact = turn.answer.rstrip(".").removesuffix(" years old").split()[-1]
        assert turn.answer == "The text does not say." or fact in turn.user


def test_json_answers_parse_and_repeat_the_sentence() -> None:
    for turn in [*turns_of("to_json"), *turns_of("to_json_list")]:
        parsed = json.loads(turn.answer)
        values = parsed if isinstance(parsed, list) else list(parsed.values())
        assert all(str(value).lower() in turn.user.lower() for value in values)


def test_refusals_say_that_the_model_is_small() -> None:
    assert all("small built-in model" in answer for answers in ALL_ANSWERS.values() for answer in answers)


def test_tables_of_facts_are_whole() -> None:
    assert CAPITALS["France"] == "Paris" and len(CAPITALS) > 100
    assert [number for number, *_ in ELEMENTS[:54]] == list(range(1, 55))
    assert (26, "iron", "Fe") in ELEMENTS and len({symbol for *_, symbol in ELEMENTS}) == len(ELEMENTS)
