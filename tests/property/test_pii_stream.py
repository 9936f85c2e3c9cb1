"""Personal data and secrets in a stream: whatever the chunking, nothing of them goes out, and the rest does as it was."""

from __future__ import annotations

import os

import pytest
from guarded import guard_of, heard, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.config import RuleSettings
from penstock.core.types import Delta, ToolCallPiece
from penstock.guard.pii import Finder

pytest.importorskip("re2")

BODY = "\n".join("MHcCAQEEIIGlRHaX9wQj0x9kZx9kQ2mP7rT4vW8yB1nD5gH3jL6sF0aCeuAb"[n:] + "Qj0x+9/Zx9kQ2m"[:n] for n in range(12))
KEY = f"-----BEGIN EC PRIVATE KEY-----\n{BODY}\nZk==\n-----END EC PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0" * 20 + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
SENSITIVE = (
    "jane.doe@example.co.uk", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "078-05-1121", "+49 30 901820", "(212) 555-0123",
    "203.0.113.7", "AKIAIOSFODNN7EXAMPLE", "sk-proj-Zx9kQ2mP7rT4vW8yB1nD", KEY, JWT,
)  # fmt: skip
PLAIN = (
    "the",
    "is",
    "I think so.",
    "1999",
    "12",
    "order",
    "x" * 300,
    "https://example.org/" + "a1/" * 90,
    "ünï",
    "[EMAIL_1]",
    "-----",
    "a-b",
)
EXAMPLES = int(os.environ.get("PENSTOCK_PII_EXAMPLES", "15"))
FINDER = Finder()
GUARD = guard_of(RuleSettings(kind="pii", action="redact", budget_s=30.0))


@st.composite
def chunked(draw: st.DrawFn) -> list[str]:
    words = draw(st.lists(st.sampled_from((*SENSITIVE, *PLAIN)), min_size=1, max_size=5))
    text = " ".join(words) + draw(st.sampled_from(("", ".", "\n")))
    size = draw(st.sampled_from((1, 2, 3, 5, 17, 100, 400)))
    first = draw(st.integers(0, size))
    return [text[:first], *(text[at : at + size] for at in range(first, len(text), size))]


def redacted(text: str) -> str:
    for found in reversed(FINDER.spans(text)):
        text = f"{text[: found.start]}[{found.kind.upper()}]{text[found.end :]}"
    return text


@settings(max_examples=EXAMPLES, deadline=None)
@given(chunked())
async def test_a_stream_is_redacted_as_its_whole_text_is(chunks: list[str]) -> None:
    events, judged = await heard(GUARD, [*(Delta(text=chunk) for chunk in chunks), Delta(finish_reason="stop")])
    assert texts(events)["text"] == redacted("".join(chunks))
    assert all(judgement.action == "redact" for judgement in judged)


@pytest.mark.parametrize("value", SENSITIVE)
async def test_split_at_every_character_nothing_leaks(value: str) -> None:
    text = f"So: {value}, yes."
    expected = redacted(text)
    assert value[4:12] not in expected
    for at in range(0, len(text) + 1, 1 if len(text) < 100 else 13):
        for part in ("text", "reasoning"):
            pieces = [Delta(**{part: text[:at]}), Delta(**{part: text[at:]}), Delta(finish_reason="stop")]
            assert texts((await heard(GUARD, pieces))[0])[part] == expected


async def test_a_key_in_the_arguments_of_a_tool_is_cut_out_as_well() -> None:
    arguments = '{"key": "' + KEY.replace("\n", "\\n") + '", "to": "jane.doe@example.co.uk"}'
    for size in (1, 7, 40):
        calls = [ToolCallPiece(index=0, arguments=arguments[at : at + size]) for at in range(0, len(arguments), size)]
        events, _ = await heard(GUARD, [*(Delta(tool_calls=(call,)) for call in calls), Delta(finish_reason="tool_calls")])
        assert texts(events)[0] == '{"key": "[PRIVATE_KEY]", "to": "[EMAIL]"}'
