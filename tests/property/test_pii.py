"""However a text is cut: what `could_grow_from` lets go never changes with what follows."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.guard.pii import Finder

FINDER = Finder()
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIGlRHaX9w\nQj0x+/9k=\n-----END EC PRIVATE KEY-----"
PIECES = [
    "jane.doe@example.co.uk", "4111 1111 1111 1111", "378282246310005", "DE89 3704 0044 0532 0130 00", "078-05-1121", "078051121",
    "+49 30 901820", "(212) 555-0123", "986.291.2294x751", "99 577450", "020 7946 0958", "203.0.113.7", "2001:db8::8a2e:370:7334",
    "00:1A:2B:3C:4D:5E", "https://ann:pa55w0rd@example.org", "AKIAIOSFODNN7EXAMPLE", "sk-proj-Zx9kQ2mP7rT4vW8yB1nD", KEY,
    "password=Hunter2!xy", "Bearer abcdef1234567890ABCDEF", "born on 12 March 1985", "born", "March 3, 1999", "call",
    "fax", " office", "ext 12",
    "SSN", "card", "12", "1999", "7", "a", "the", "is", "order", "version", "-----", "[EMAIL_1]", "ünï", "电话", "13800138000",
]  # fmt: skip
GLUE = [" ", " ", " ", ". ", ", ", "\n", ": ", '"', "(", ")", "", "-", "/"]
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(GLUE)), min_size=1, max_size=8).map(
    lambda parts: "".join(piece + glue for piece, glue in parts)
)


@settings(max_examples=int(os.environ.get("PENSTOCK_PII_EXAMPLES", "40")), deadline=None)
@given(TEXTS)
def test_what_is_let_go_is_decided(text: str) -> None:
    whole = FINDER.spans(text)
    for end in range(len(text) + 1):
        free = FINDER.could_grow_from(text[:end])
        assert 0 <= free <= end
        so_far = [found for found in FINDER.spans(text[:end]) if found.start < free]
        assert so_far == [found for found in whole if found.start < free], (text[:end], free)
        assert all(found.end <= free for found in so_far), (text[:end], free)
