"""Whatever the chunking, no blocked span leaks, and what comes out is what the whole text would have become."""

from __future__ import annotations

import os
import re

import pytest
from guarded import chat, guard_of, heard, spoken, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.config import RuleSettings
from penstock.core.types import Delta, Event, Finish, ToolCallPiece
from penstock.guard import Checked
from penstock.guard.regex import Regex

pytest.importorskip("re2")

PATTERNS = (
    r"\bsk-[a-z0-9]{3,6}\b",
    r"(?i)top ?secret",
    r"\d{3}-\d{4}",
    r"ab+c{0,3}",
    r"aba",
    r"x(?:yz){1,2}x?",
    r"^b",
    r"c$",
)
WORDS = ("sk-ab12", "Top Secret", "topsecret", "555-1234", "abbc", "aba", "abab", "xyzyz", "xyzx", *"abc -é\n1", "sk-", "top", "55")
planted = st.lists(st.sampled_from(WORDS), max_size=14).map("".join)
chosen = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3, unique=True)


campaign = settings(max_examples=int(os.environ.get("PENSTOCK_GUARD_EXAMPLES", "40")), deadline=None)


def rule(*patterns: str, **settings: object) -> RuleSettings:
    return RuleSettings(kind="regex", name="no", patterns=list(patterns), **{"action": "redact", "budget_s": 10.0, **settings})


def cut(text: str, patterns: list[str]) -> str:
    """What the whole text becomes, by Python's own regular expressions."""
    found = sorted(
        match.span()
        for pattern in patterns
        for match in re.finditer(pattern.replace("$", r"\Z"), text, re.ASCII)
        if match.end() > match.start()
    )
    merged: list[list[int]] = []
    for start, end in found:
        if merged and start < merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([start, end])
    for start, end in reversed(merged):
        text = f"{text[:start]}[NO]{text[end:]}"
    return text


@st.composite
def chunked(draw: st.DrawFn) -> list[str]:
    text = draw(planted)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def pieces_of(chunks: list[str]) -> list[Delta]:
    pieces = [Delta(text=chunk, token_ids=(number,)) for number, chunk in enumerate(chunks)]
    return [*pieces, Delta(finish_reason="stop")]


def ends_properly(events: list[Event], reason: str = "stop") -> bool:
    deltas = [event for event in events if isinstance(event, Delta)]
    reasons = [delta.finish_reason for delta in deltas]
    return isinstance(events[-1], Finish) and events[-1].reason == reason and reasons == [None] * (len(deltas) - 1) + [reason]


@campaign
@given(chunked(), chosen)
async def test_a_stream_is_redacted_as_its_whole_text_is(chunks: list[str], patterns: list[str]) -> None:
    events, _ = await heard(guard_of(rule(*patterns)), pieces_of(chunks))
    assert texts(events)["text"] == cut("".join(chunks), patterns)
    assert ends_properly(events)


@campaign
@given(planted, chosen)
async def test_split_in_two_anywhere(text: str, patterns: list[str]) -> None:
    guard = guard_of(rule(*patterns))
    for at in range(len(text) + 1):
        events, _ = await heard(guard, pieces_of([text[:at], text[at:]]))
        assert texts(events)["text"] == cut(text, patterns)


@campaign
@given(chunked(), chosen)
async def test_a_refusal_lets_out_what_came_before_it_and_no_more(chunks: list[str], patterns: list[str]) -> None:
    events, judged = await heard(guard_of(rule(*patterns, action="refuse")), pieces_of(chunks))
    text = "".join(chunks)
    clean = cut(text, patterns)
    got = texts(events)["text"]
    if clean == text:
        assert got == text and ends_properly(events) and not judged
    else:
        assert clean.startswith(got) and got == clean[: clean.index("[NO]")]
        assert ends_properly(events, "content_filter")
        assert [judgement.action for judgement in judged] == ["refuse"]


@campaign
@given(chunked())
async def test_tokens_go_out_once_and_in_order(chunks: list[str]) -> None:
    patterns = list(PATTERNS)
    events, _ = await heard(guard_of(rule(*patterns)), pieces_of(chunks))
    deltas = [event for event in events if isinstance(event, Delta)]
    tokens = [token for delta in deltas for token in delta.token_ids]
    assert tokens == sorted(tokens)
    if cut("".join(chunks), patterns) == "".join(chunks):
        assert tokens == list(range(len(chunks)))
    assert sum(len(delta.token_ids) or delta.num_pieces for delta in deltas if delta.finish_reason is None) <= len(chunks)


@st.composite
def interleaved(draw: st.DrawFn) -> list[Delta]:
    pieces = []
    for _ in range(draw(st.integers(1, 10))):
        kind, text = draw(st.sampled_from(["text", "reasoning", 0, 1])), draw(st.sampled_from(WORDS))
        for part in (text[:1], text[1:]):
            call = ToolCallPiece(index=kind, id=f"c{kind}", name="f", arguments=part) if isinstance(kind, int) else None
            pieces.append(Delta(tool_calls=(call,)) if call else Delta(**{str(kind): part}))
    return [*pieces, Delta(finish_reason="stop")]


@campaign
@given(interleaved(), chosen)
async def test_each_text_by_itself_however_they_are_mixed(pieces: list[Delta], patterns: list[str]) -> None:
    events, _ = await heard(guard_of(rule(*patterns)), pieces)
    whole = texts(pieces)
    assert texts(events) == {key: cut(text, patterns) for key, text in whole.items()}
    assert ends_properly(events)


@campaign
@given(interleaved(), chosen)
async def test_texts_keep_their_order(pieces: list[Delta], patterns: list[str]) -> None:
    """Each text goes on until the next begins, where the model wrote them one after the other."""
    ordered = sorted(pieces[:-1], key=lambda piece: (piece.tool_calls[0].index if piece.tool_calls else -1, bool(piece.text)))
    events, _ = await heard(guard_of(rule(*patterns)), [*ordered, pieces[-1]])
    seen = [key for event in events if isinstance(event, Delta) for key, text in texts([event]).items() if text]
    runs = [key for at, key in enumerate(seen) if at == 0 or seen[at - 1] != key]
    assert len(runs) == len(set(runs))


@campaign
@given(st.lists(st.sampled_from(["[EMAIL_1]", "[EMAIL_12]", "[", "[EMAIL", "]", "[EMAIL_3]", "_1]", "a"]), max_size=8), st.randoms())
async def test_placeholders_are_put_back_wherever_they_are_cut(words: list[str], random) -> None:
    originals = {"[EMAIL_1]": "a@b.c", "[EMAIL_12]": 'q"\\'}
    text = "".join(words)
    cuts = sorted(random.randint(0, len(text)) for _ in range(6))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    checked = Checked(request=chat("Hi"), originals=originals)
    guard = guard_of(rule("never"))
    events, _ = await heard(guard, pieces_of(chunks), checked)
    back = re.sub(r"\[EMAIL_(?:1|12)\]", lambda match: originals[match[0]], text)
    assert texts(events)["text"] == back


@campaign
@given(planted, st.sampled_from(PATTERNS))
def test_what_may_still_become_a_match_is_known(text: str, pattern: str) -> None:
    """A text that ends in the middle of a match is held back from its beginning."""
    rule = Regex("no", [pattern])
    for match in re.finditer(pattern, text, re.ASCII):
        for end in range(match.start() + 1, match.end()):
            assert rule.pending(text[:end], match.start()) == match.start()


async def test_the_upstream_is_closed_when_an_answer_is_refused() -> None:
    events = spoken(pieces_of(["a sk-ab12 ", "b", "c"]))
    guard = guard_of(rule(*PATTERNS, action="refuse"))
    async for event in guard.watch(Checked(request=chat("Hi")), events, lambda _: None):
        last = event
    assert last == Finish(reason="content_filter")
    assert events.ag_frame is None
