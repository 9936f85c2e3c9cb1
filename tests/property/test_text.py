"""Streams of text, whatever the tokens and however they are cut: nothing lost, nothing early, nothing of a stop string."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from penstock.files import locate
from penstock.text import TextStream, Tokenizer, load_tokenizer
from penstock.text.decoding import byte_alphabet
from penstock.text.gguf import from_metadata
from penstock.text.pieces import Kind

WORDS = ["▁", "a", "b", "▁a", "ab", "aba", "<", "</", "é", "你好", "▁🦙"]


@cache
def _sentencepiece() -> Tokenizer:
    """<unk>, <s>, </s>, 256 bytes and words; a space before the text belongs to the tokenizer."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    kinds = [Kind.UNKNOWN, Kind.CONTROL, Kind.CONTROL, *[Kind.BYTE] * 256, *[Kind.NORMAL] * len(WORDS)]
    scores = [-float(rank) for rank in range(len(tokens))]
    named = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return _gguf({"model": "llama", "tokens": tokens, "scores": scores, "token_type": [int(kind) for kind in kinds], **named})


@cache
def _byte_level() -> Tokenizer:
    """256 bytes, a few merges of which some are half characters, and two special tokens."""
    alphabet = {byte: char for char, byte in byte_alphabet().items()}
    pairs = [(b" ", b"a"), (b"a", b"b"), (b"\xe4", b"\xbd"), (b"\xbd", b"\xa0"), (b"\xf0", b"\x9f"), (b"\n", b"\n")]
    written = [tuple("".join(alphabet[byte] for byte in half) for half in pair) for pair in pairs]
    tokens = [*alphabet.values(), *("".join(pair) for pair in written), "<s>", "</s>"]
    kinds = [Kind.NORMAL] * (len(tokens) - 2) + [Kind.CONTROL] * 2
    named = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    table = {"tokens": tokens, "merges": [" ".join(pair) for pair in written], "token_type": [int(kind) for kind in kinds]}
    return _gguf({"model": "gpt2", "pre": "gpt-2", **table, **named})


def _gguf(table: dict[str, object]) -> Tokenizer:
    return from_metadata({f"tokenizer.ggml.{key}": value for key, value in table.items()})


@cache
def _builtin() -> Tokenizer:
    return load_tokenizer(locate("penstock-mini"))


families = st.sampled_from([_sentencepiece, _byte_level, _builtin]).map(lambda make: make())
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=60) | st.text(" ab\n<é你🦙", max_size=60)


@st.composite
def tokens(draw: st.DrawFn, tokenizer: Tokenizer) -> list[int]:
    """Random ids, ids beyond the vocabulary among them, or those of a text."""
    if draw(st.booleans()):
        return draw(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=60))
    return tokenizer.encode(draw(texts))


@st.composite
def chunks(draw: st.DrawFn, ids: list[int]) -> list[list[int]]:
    """`ids` cut at random, with empty chunks now and then."""
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=8)))
    return [ids[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)]


def _streamed(stream: TextStream, parts: list[list[int]]) -> tuple[str, str | None, int]:
    """The whole text, the stop string and the number of tokens used."""
    text, used = "", 0
    for index, part in enumerate(parts):
        piece = stream.push(part, final=index + 1 == len(parts))
        text, used = text + piece.text, used + piece.num_tokens
        if piece.stop_reason is not None:
            return text, piece.stop_reason, used
    return text, None, used


@given(st.data(), families, st.booleans())
def test_pieces_join_to_the_decoded_text(data: st.DataObject, tokenizer: Tokenizer, skip: bool) -> None:
    ids = data.draw(tokens(tokenizer))
    text, _, used = _streamed(TextStream(tokenizer, skip_special_tokens=skip), data.draw(chunks(ids)))
    assert text == tokenizer.decode(ids, skip_special_tokens=skip)
    assert used == len(ids)


@given(families, texts)
def test_text_survives_and_no_piece_has_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    detokenizer = tokenizer.detokenizer(skip_special_tokens=False)
    pieces = [detokenizer.push([id]) for id in ids]
    assert "".join(pieces) == text
    assert detokenizer.flush() == ""


@given(st.data(), families)
def test_a_prompt_and_its_continuation_join_to_the_whole(data: st.DataObject, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(data.draw(texts))
    cut = data.draw(st.integers(0, len(ids)))
    prompt = tokenizer.detokenizer()
    before = prompt.push(ids[:cut])
    after, _, _ = _streamed(TextStream(tokenizer, prompt_tail=ids[:cut]), [ids[cut:]])
    assert before + after == tokenizer.decode(ids)


def _expected(tokenizer: Tokenizer, ids: list[int], stops: list[str], min_tokens: int) -> tuple[str, str | None, int]:
    """Read character by character: the first place where a stop string is complete, and the longest one there."""
    detokenizer = tokenizer.detokenizer()
    text = ""
    for count, token_id in enumerate([*ids, None], start=1):
        for char in detokenizer.flush() if token_id is None else detokenizer.push([token_id]):
            text += char
            found = [stop for stop in stops if text.endswith(stop)]
            if found and min(count, len(ids)) > min_tokens:
                longest = max(found, key=len)
                return text.removesuffix(longest), longest, min(count, len(ids))
    return text, None, len(ids)


stop_strings = st.lists(st.text("ab é\ufffd<", min_size=1, max_size=4), max_size=5)


def _check_stops(data: st.DataObject, tokenizer: Tokenizer, ids: list[int], stops: list[str], min_tokens: int) -> None:
    include = data.draw(st.booleans())
    stream = TextStream(tokenizer, stop=tuple(stops), min_tokens=min_tokens, include_stop=include)
    text, stop, used = _streamed(stream, data.draw(chunks(ids)))
    expected, expected_stop, expected_used = _expected(tokenizer, ids, stops, min_tokens)
    assert (stop, used) == (expected_stop, expected_used)
    assert text == expected + (expected_stop or "" if include else "")


@given(st.data(), families, stop_strings, st.integers(0, 6))
def test_stop_strings(data: st.DataObject, tokenizer: Tokenizer, stops: list[str], min_tokens: int) -> None:
    _check_stops(data, tokenizer, data.draw(tokens(tokenizer)), stops, min_tokens)


@given(st.data(), st.text("ab", min_size=8, max_size=30), st.lists(st.text("ab", min_size=2, max_size=6), min_size=2, max_size=6))
def test_stop_strings_that_overlap(data: st.DataObject, text: str, stops: list[str]) -> None:
    tokenizer = _sentencepiece()
    _check_stops(data, tokenizer, tokenizer.encode(text), stops, data.draw(st.integers(0, 4)))


@given(st.data(), families, stop_strings.filter(bool))
def test_nothing_is_held_back_but_a_possible_stop(data: st.DataObject, tokenizer: Tokenizer, stops: list[str]) -> None:
    stream, detokenizer = TextStream(tokenizer, stop=tuple(stops)), tokenizer.detokenizer()
    shown = known = ""
    for token_id in data.draw(tokens(tokenizer)):
        piece = stream.push([token_id])
        if piece.stop_reason is not None:
            return
        shown, known = shown + piece.text, known + detokenizer.push([token_id])
        held = known.removeprefix(shown)
        assert shown + held == known
        assert any(stop.startswith(held) for stop in stops)
