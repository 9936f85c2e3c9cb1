"""The text of a stream: whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.core.errors import InvalidRequest
from penstock.files import ModelFiles
from penstock.text import Piece, TextStream, Tokenizer, load_tokenizer

Folder = Callable[[dict[str, object]], ModelFiles]


@pytest.fixture
def tokenizer(folder: Folder, sentencepiece_model: bytes) -> Tokenizer:
    return load_tokenizer(folder({"tokenizer.model": sentencepiece_model}))


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """One token for each byte but the spaces, so that everything is cut everywhere."""
    return [3 + byte for byte in text.encode()]


def _pieces(stream: TextStream, ids: list[int]) -> list[Piece]:
    """Token by token, until a stop."""
    pieces = []
    for index, token_id in enumerate(ids):
        pieces.append(stream.push([token_id], final=index + 1 == len(ids)))
        if pieces[-1].stop_reason is not None:
            break
    return pieces


def _text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_never_half_a_character(tokenizer: Tokenizer) -> None:
    pieces = _pieces(TextStream(tokenizer), _ids(tokenizer, "é你🦙"))
    assert [piece.text for piece in pieces] == ["", "é", "", "", "你", "", "", "", "🦙"]


def test_an_unfinished_character_is_replaced_at_the_end(tokenizer: Tokenizer) -> None:
    assert _text(_pieces(TextStream(tokenizer), _ids(tokenizer, "a🦙")[:-1])) == "a\ufffd"


def test_a_prompt_that_ends_in_half_a_character_is_continued(tokenizer: Tokenizer) -> None:
    ids = _ids(tokenizer, "🦙!")
    assert TextStream(tokenizer, prompt_tail=ids[:2]).push(ids[2:], final=True).text == "🦙!"


def test_first_space_belongs_to_the_text_after_a_prompt(tokenizer: Tokenizer) -> None:
    hello = tokenizer.encode("hello", add_special_tokens=False)
    assert TextStream(tokenizer).push(hello).text == "hello"
    assert TextStream(tokenizer, prompt_tail=[1]).push(hello).text == "hello"  # BOS is no text
    assert TextStream(tokenizer, prompt_tail=hello).push(hello).text == " hello"


def test_special_tokens_are_shown_when_asked_for(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("hello", add_special_tokens=False), 2]
    assert TextStream(tokenizer).push(ids, final=True).text == "hello"
    assert TextStream(tokenizer, skip_special_tokens=False).push(ids, final=True).text == "hello</s>"


def test_stop_string_across_pieces(tokenizer: Tokenizer) -> None:
    pieces = _pieces(TextStream(tokenizer, stop=("END",)), _ids(tokenizer, "one EN two END three"))
    assert _text(pieces) == "one EN two "
    assert (pieces[-1].stop_reason, len(pieces)) == ("END", len("one EN two END"))


def test_only_a_possible_beginning_is_held_back(tokenizer: Tokenizer) -> None:
    pieces = _pieces(TextStream(tokenizer, stop=("END",)), _ids(tokenizer, "aENxEE"))
    assert [piece.text for piece in pieces] == ["a", "", "", "ENx", "", "EE"]


def test_stop_string_is_included_when_asked_for(tokenizer: Tokenizer) -> None:
    assert _text(_pieces(TextStream(tokenizer, stop=("END",), include_stop=True), _ids(tokenizer, "a END b"))) == "a END"


def test_number_of_tokens_up_to_the_stop(tokenizer: Tokenizer) -> None:
    assert TextStream(tokenizer, stop=("c",)).push(_ids(tokenizer, "abcdef")) == Piece("ab", 3, "c")


@pytest.mark.parametrize(
    ("stop", "text", "before", "reason"),
    [
        (("abc", "b"), "xabcx", "xa", "b"),  # complete first
        (("bc", "abc"), "xabcx", "x", "abc"),  # at the same character: the longest
        (("aab",), "aaab", "a", "aab"),  # a beginning that overlaps itself
        (("abab", "babc"), "ababc", "", "abab"),
        (("\n\n", "\nUser:"), "hi\nUser:", "hi", "\nUser:"),
        (("🦙",), "ab🦙", "ab", "🦙"),
        (("\ufffd",), "ab", "ab", None),
    ],
)
def test_which_stop_string_wins(tokenizer: Tokenizer, stop: tuple[str, ...], text: str, before: str, reason: str | None) -> None:
    pieces = _pieces(TextStream(tokenizer, stop=stop), _ids(tokenizer, text))
    assert (_text(pieces), pieces[-1].stop_reason) == (before, reason)


def test_stop_string_found_in_what_the_end_releases(tokenizer: Tokenizer) -> None:
    piece = TextStream(tokenizer, stop=("\ufffd",)).push(_ids(tokenizer, "a🦙")[:-1], final=True)
    assert piece == Piece("a", 4, "\ufffd")


def test_min_tokens_makes_an_early_stop_ordinary_text(tokenizer: Tokenizer) -> None:
    pieces = _pieces(TextStream(tokenizer, stop=("b",), min_tokens=2), _ids(tokenizer, "abcabc"))
    assert (_text(pieces), len(pieces)) == ("abca", 5)


def test_a_stop_that_does_not_count_is_not_held_back(tokenizer: Tokenizer) -> None:
    pieces = _pieces(TextStream(tokenizer, stop=("bc",), min_tokens=9), _ids(tokenizer, "abcd"))
    assert [piece.text for piece in pieces] == ["a", "", "bc", "d"]


def test_min_tokens_counts_the_stop_that_ends_after_them(tokenizer: Tokenizer) -> None:
    pieces = _pieces(TextStream(tokenizer, stop=("aa",), min_tokens=2), _ids(tokenizer, "aaa"))
    assert (_text(pieces), pieces[-1].stop_reason) == ("a", "aa")


def test_an_empty_stop_string_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="empty") as refused:
        TextStream(tokenizer, stop=("a", ""))
    assert refused.value.param == "stop"
