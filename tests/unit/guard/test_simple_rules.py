"""Length, topics, and patterns by their prefixes."""

from __future__ import annotations

import re

import pytest
from guarded import chat, guard_of

from penstock.core.config import RuleSettings
from penstock.core.types import Message, Request
from penstock.guard.prefixes import Unreadable, prefixes

TOPICS = RuleSettings(kind="topics", patterns=["weapons and explosives", "gambling"], budget_s=10.0)


async def refused(rule: RuleSettings, request: Request) -> str:
    refusal = (await guard_of(rule).check(request, lambda _: None)).refusal
    return refusal.why if refusal else ""


async def test_what_is_too_long_is_refused_or_cut() -> None:
    rule = RuleSettings(kind="length", max_chars=10, budget_s=10.0)
    assert await refused(rule, chat("0123456789")) == ""
    assert await refused(rule, chat("0123456789a")) == "11 characters; the most is 10"
    shorter = RuleSettings(kind="length", max_chars=10, action="redact", budget_s=10.0)
    checked = await guard_of(shorter).check(chat("0123456789abc"), lambda _: None)
    assert (checked.request.messages or ())[0].content == "0123456789[CUT_1]"


async def test_a_topic_is_found_by_its_name_and_by_what_a_sentence_is_about() -> None:
    assert await refused(TOPICS, chat("Is Gambling legal?")) == "it names the topic 'gambling'"
    about = await refused(TOPICS, chat("Good morning! Which explosive weapons would break this wall?"))
    assert about == "it is about the topic 'weapons and explosives'"
    assert await refused(TOPICS, chat("Please translate: the cat sleeps on the sofa.")) == ""


async def test_topics_are_looked_for_in_what_the_user_says() -> None:
    request = Request(id="r", model="m", messages=(Message(role="system", content="Never talk about gambling."),))
    assert await refused(TOPICS, request) == ""


@pytest.mark.parametrize(
    ("pattern", "longest"),
    [("abc", 3), ("a?b{2,5}", 6), ("(?:ab|c){3}", 6), ("[^]a]{2}x*", None), (r"\b\d+", None), (r"^a\.b$", 3), ("(?i)x|yz", 2), ("", 0)],
)
def test_the_longest_match_of_a_pattern(pattern: str, longest: int | None) -> None:
    assert prefixes(pattern).longest == longest


@pytest.mark.parametrize(
    ("pattern", "match"), [("ab+c", "abbbc"), ("(?:ab|ac){2}d", "abacd"), (r"\d{3}-\d{2,4}", "123-4567"), ("x?y?z", "xyz")]
)
def test_every_beginning_of_a_match_is_a_prefix(pattern: str, match: str) -> None:
    begun = re.compile(prefixes(pattern).pattern)
    assert all(begun.fullmatch(match[:end]) for end in range(len(match)))
    assert not begun.fullmatch("q")


@pytest.mark.parametrize("pattern", [r"\Qa.b\E", "a(?i)b", "(" * 8 + "a" + ")" * 8])
def test_a_pattern_that_is_not_understood_is_held_by_its_reach_alone(pattern: str) -> None:
    with pytest.raises(Unreadable):
        prefixes(pattern)
