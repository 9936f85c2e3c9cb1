"""What rules do to an answer on its way: held back no longer than need be, refused in the middle, told at the end."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from guarded import Broken, Shouting, chat, enforcing, guard_of, heard, spoken, texts
from msgspec.structs import replace

from penstock.core.config import RuleSettings
from penstock.core.types import Delta, Event, Finish, Judgement, Principal, PromptInfo, TokenLogprob, ToolCallPiece
from penstock.guard import Checked

pytest.importorskip("re2")

KEY = RuleSettings(kind="regex", name="key", patterns=[r"\bsk-[a-z0-9]{4,8}\b"], action="redact", budget_s=10.0)
SHOUT = RuleSettings(kind="shout", budget_s=10.0)
JSON = RuleSettings(kind="json", budget_s=10.0)


def said(*pieces: str, index: int = 0) -> list[Delta]:
    return [*(Delta(index=index, text=piece) for piece in pieces), Delta(index=index, finish_reason="stop")]


def shown(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Delta) and event.text]


async def test_clean_text_is_not_held_back() -> None:
    pieces = said("The ", "sky", " is blue", " sk", "y high.")
    events, judged = await heard(guard_of(KEY), pieces)
    assert shown(events) == ["The ", "sky", " is blue", " ", "sky high."]
    assert judged == []


async def test_a_rule_that_knows_no_beginnings_holds_its_reach() -> None:
    events, _ = await heard(enforcing((Shouting(), replace(SHOUT, action="redact"))), said("a" * 30, "b"))
    assert [len(text) for text in shown(events)] == [11, 1, 19]


async def test_untouched_pieces_pass_as_they_came() -> None:
    scored = (TokenLogprob(7, "x", -0.5),)
    piece = Delta(text="Hello ", token_ids=(7,), logprobs=scored, finish_reason="stop")
    info = PromptInfo(token_ids=(1, 2))
    events = [event async for event in guard_of(KEY).watch(Checked(request=chat("Hi")), _events(info, piece), lambda _: None)]
    assert events == [info, piece, Finish(reason="stop")]


async def _events(*events: Event):
    for event in events:
        yield event
    yield Finish(reason="stop")


async def test_tokens_of_what_was_changed_are_not_told() -> None:
    scored = (TokenLogprob(7, "sk-aaaa", -0.5),)
    pieces = [
        Delta(text="my sk-", token_ids=(1, 2)),
        Delta(text="aaaa", token_ids=(7,), logprobs=scored),
        Delta(text=" ok", token_ids=(8,)),
    ]
    events, _ = await heard(guard_of(KEY), [*pieces, Delta(finish_reason="stop")])
    assert texts(events)["text"] == "my [KEY] ok"
    assert all(7 not in event.token_ids and event.logprobs is None for event in events if isinstance(event, Delta))
    assert sum(len(event.token_ids) or event.num_pieces for event in events if isinstance(event, Delta) and not event.finish_reason) == 4


async def test_a_refusal_ends_the_answer_with_what_was_clean() -> None:
    events, judged = await heard(guard_of(replace(KEY, action="refuse")), said("It is ", "sk-aa", "aa", " and more", " and more"))
    assert texts(events)["text"] == "It is "
    assert [event.finish_reason for event in events if isinstance(event, Delta)][-1] == "content_filter"
    assert events[-1] == Finish(reason="content_filter")
    assert [(judgement.rule, judgement.action) for judgement in judged] == [("key", "refuse")]


async def test_each_choice_is_refused_by_itself() -> None:
    pieces = [Delta(text="one "), Delta(index=1, text="two "), Delta(text="sk-aaaa "), *said("three", index=1)]
    checked = Checked(request=chat("Hi", n=2))
    events, _ = await heard(guard_of(replace(KEY, action="refuse")), [*pieces, Delta(text="four", finish_reason="stop")], checked)
    assert (texts(events, 0)["text"], texts(events, 1)["text"]) == ("one ", "two three")
    reasons = {event.index: event.finish_reason for event in events if isinstance(event, Delta) and event.finish_reason}
    assert reasons == {0: "content_filter", 1: "stop"}


async def test_reasoning_and_arguments_are_read_alike() -> None:
    call = ToolCallPiece(index=0, id="c", name="f", arguments='{"k": "sk-a')
    pieces = [Delta(reasoning="I know sk-"), Delta(reasoning="aaaa"), Delta(tool_calls=(call,))]
    rest = Delta(tool_calls=(ToolCallPiece(index=0, arguments='aaa"}'),), finish_reason="tool_calls")
    events, _ = await heard(guard_of(KEY), [*pieces, rest])
    assert texts(events) == {"reasoning": "I know [KEY]", "text": "", 0: '{"k": "[KEY]"}'}
    first = next(call for event in events if isinstance(event, Delta) for call in event.tool_calls)
    assert (first.id, first.name) == ("c", "f")


@pytest.mark.parametrize("cut", range(1, 29))
async def test_escapes_in_arguments_and_unseen_characters_hide_nothing(cut: int) -> None:
    arguments = '{"k": "\\u0073k-\\u0061aaa"} ok'
    calls = [Delta(tool_calls=(ToolCallPiece(index=0, arguments=part),)) for part in (arguments[:cut], arguments[cut:])]
    events, _ = await heard(guard_of(KEY), [*calls, Delta(finish_reason="stop")])
    assert texts(events)[0] == '{"k": "[KEY]"} ok'
    unseen = "it is s\u200bk-\u2060aаaa now"  # with a Cyrillic letter
    events, _ = await heard(guard_of(KEY), said(unseen[:cut], unseen[cut:]))
    assert texts(events)["text"] == "it is [KEY] now"


async def test_originals_are_put_back_everywhere_and_escaped_in_json() -> None:
    checked = Checked(request=chat("Hi"), originals={"[NAME_1]": 'Jo "J"'})
    call = ToolCallPiece(index=0, id="c", name="f", arguments='{"to": "[NAME_1]"}')
    pieces = [Delta(reasoning="Who is [NAME_", text="Dear [NAME"), Delta(reasoning="1]?", text="_1], [NAME_2]"), Delta(tool_calls=(call,))]
    events, judged = await heard(guard_of(KEY), [*pieces, Delta(finish_reason="stop")], checked)
    assert texts(events) == {"reasoning": 'Who is Jo "J"?', "text": 'Dear Jo "J", [NAME_2]', 0: '{"to": "Jo \\"J\\""}'}
    assert judged == []


async def test_placeholders_are_put_back_without_output_rules() -> None:
    checked = Checked(request=chat("Hi"), originals={"[KEY_1]": "sk-aaaa"})
    events, _ = await heard(guard_of(replace(KEY, on=["input"])), said("it is [KEY", "_1]"), checked)
    assert texts(events)["text"] == "it is sk-aaaa"


async def test_sentences_are_judged_whole_and_alone() -> None:
    rule = Shouting(unit="sentence", cuts=False)
    events, _ = await heard(enforcing((rule, SHOUT)), said("All is", " well. And", " so. I am LO", "UD now. Sorry.", " Bye."))
    assert [text.text for text in rule.asked] == ["All is well. ", "And so. ", "I am LOUD now. "]
    assert texts(events)["text"] == "All is well. And so. "
    assert events[-1].reason == "content_filter"


async def test_an_answer_that_should_be_json_goes_out_when_it_is() -> None:
    checked = Checked(request=chat("Hi", response_format={"type": "json_object"}))
    events, _ = await heard(guard_of(JSON), said('{"a"', ": 1}"), checked)
    assert shown(events) == ['{"a": 1}']
    events, judged = await heard(guard_of(JSON), said('{"a"', ": 1"), checked)
    assert shown(events) == [] and events[-1].reason == "content_filter"
    assert judged[0].why == "the answer is not valid JSON"
    events, _ = await heard(guard_of(JSON), said("no ", "JSON"))
    assert shown(events) == ["no ", "JSON"]


@pytest.mark.parametrize("rule", [replace(JSON, dry_run=True), replace(KEY, dry_run=True)])
async def test_a_dry_run_holds_nothing_and_tells_at_the_end(rule: RuleSettings) -> None:
    checked = Checked(request=chat("Hi", response_format={"type": "json_object"}))
    events, judged = await heard(guard_of(rule), said("sk-", "aaaa", " no JSON"), checked)
    assert shown(events) == ["sk-", "aaaa", " no JSON"]
    assert [(judgement.action, judgement.shadow) for judgement in judged] == [(rule.action, True)]


@pytest.mark.parametrize(("when_failed", "text"), [("closed", ""), ("open", "Hello you")])
@pytest.mark.parametrize("unit", ["span", "sentence", "whole"])
async def test_a_rule_that_fails_in_a_stream(when_failed: str, text: str, unit: str) -> None:
    broken = RuleSettings(kind="broken", when_failed=when_failed, budget_s=0.001)
    events, judged = await heard(enforcing((Broken(unit=unit), broken)), said("Hello ", "you"))
    assert texts(events).get("text", "") == text
    assert events[-1].reason == ("stop" if text else "content_filter")
    assert [judgement.action for judgement in judged] == ["allow" if text else "refuse"]


@pytest.mark.parametrize(("when_failed", "reason"), [("closed", "content_filter"), ("open", "stop")])
async def test_a_match_without_end_is_held_no_longer_than_allowed(when_failed: str, reason: str) -> None:
    rule = RuleSettings(kind="regex", patterns=["x=.+;"], action="redact", when_failed=when_failed, budget_s=10.0)
    events, judged = await heard(guard_of(rule, hold_chars=50), said("ok x=", *["y" * 10] * 9, ";"))
    assert events[-1].reason == reason
    assert "hold_chars (50)" in judged[0].why
    assert texts(events)["text"] == "ok " + ("x=" + "y" * 90 + ";" if when_failed == "open" else "")


async def test_an_answer_that_is_not_streamed_is_judged_once() -> None:
    rule = Shouting()
    checked = Checked(request=chat("Hi", streams=False))
    events, _ = await heard(enforcing((rule, replace(SHOUT, action="redact"))), said("I am ", "LOUD", " now"), checked)
    assert [text.text for text in rule.asked] == ["I am LOUD now"]
    assert texts(events)["text"] == "I am [LOUD] now"


async def test_what_was_found_is_told_when_the_client_leaves_and_the_upstream_is_closed() -> None:
    judged: list[Judgement] = []
    upstream = spoken(said("sk-aaaa ", "more ", "and more"))
    async with aclosing(guard_of(KEY).watch(Checked(request=chat("Hi")), upstream, judged.append)) as events:
        async for _ in events:
            break
    assert [judgement.why for judgement in judged] == ["1 × KEY"]
    assert upstream.ag_frame is None


async def test_a_failure_of_the_upstream_passes_and_what_was_held_does_not() -> None:
    events, _ = await heard(guard_of(KEY), [Delta(text="it is sk-aaa")])
    assert shown(events) == ["it is ", "sk-aaa"]
    checked = Checked(request=chat("Hi"))
    failed = spoken([Delta(text="it is sk-aaa")], Finish(reason="error"))
    seen = [event async for event in guard_of(KEY).watch(checked, failed, lambda _: None)]
    assert shown(seen) == ["it is "] and seen[-1] == Finish(reason="error")


async def test_the_keys_action_holds_for_answers_too() -> None:
    checked = Checked(request=chat("Hi", principal=Principal(name="boss")))
    events, _ = await heard(guard_of(replace(KEY, keys={"boss": "allow"})), said("sk-aaaa"), checked)
    assert texts(events)["text"] == "sk-aaaa"


async def test_what_is_found_is_counted_once_where_a_text_reads_in_two_ways() -> None:
    call = Delta(tool_calls=(ToolCallPiece(index=0, id="c", name="f", arguments='{"to": "sk-aaaa", "said": "\\"x\\""}'),))
    events, judged = await heard(guard_of(KEY), [call, Delta(finish_reason="tool_calls")])
    assert texts(events)[0] == '{"to": "[KEY]", "said": "\\"x\\""}'
    assert [judgement.why for judgement in judged] == ["1 × KEY"]


async def test_a_refusal_in_shadow_says_why() -> None:
    rule = RuleSettings(kind="length", max_chars=3, on=["output"], dry_run=True, budget_s=10.0)
    _, judged = await heard(guard_of(rule), said("four"))
    assert [(judgement.action, judgement.why) for judgement in judged] == [("refuse", "4 characters; the most is 3")]
