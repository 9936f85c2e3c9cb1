"""A file as windows of tokens, for what reads texts: perplexity and calibration.

A text is cut into windows of one length. A file of conversations (.jsonl, `{"messages": […]}` or a list of messages on each
line) is rendered by the model's chat template, and what the assistant says is what counts: a chat model was never
taught to predict its users.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.core.errors import UserError
from penstock.core.types import Message
from penstock.files import ModelFiles
from penstock.text.load import load_tokenizer
from penstock.text.template import ChatTemplate, load_chat_template
from penstock.text.tokenizer import Tokenizer

LEAST_CONTEXT = 4  # so that the second half holds a token that can be scored
CONVERSATIONS = ".jsonl"


class Window(Struct, frozen=True):
    """Token ids, and the positions of those whose prediction is judged."""

    token_ids: tuple[int, ...]
    scored: tuple[int, ...]


def windows_to_score(files: ModelFiles, file: Path, context: int) -> list[Window]:
    """Windows of a text, or the conversations of a .jsonl file, each cut to `context` tokens. UserError where there are none.

    Of a window of text the second half is scored but for its first token, as llama.cpp's `llama-perplexity` does it: each
    token scored has between half a window and a whole one before it.
    """
    tokenizer = load_tokenizer(files)
    if file.suffix != CONVERSATIONS:
        scored = tuple(range(context // 2 + 1, context))
        return [Window(window, scored) for window in cut_windows(_text_tokens(file, tokenizer), tokenizer, context)]
    found = [Window(ids[:context], tuple(i for i in scored if i < context)) for ids, scored in conversations(files, file, tokenizer)]
    if not any(window.scored for window in found):
        raise UserError(f"{file} has no word of an assistant within {context} tokens", hint="each line is a conversation with its answers")
    return [window for window in found if window.scored]


def windows_to_read(files: ModelFiles, file: Path, context: int) -> list[tuple[int, ...]]:
    """Windows of `context` tokens each; conversations follow one another. UserError where there is not even one."""
    tokenizer = load_tokenizer(files)
    if file.suffix != CONVERSATIONS:
        return cut_windows(_text_tokens(file, tokenizer), tokenizer, context)
    return cut_windows([token for ids, _ in conversations(files, file, tokenizer) for token in ids], tokenizer, context)


def cut_windows(tokens: list[int], tokenizer: Tokenizer, context: int) -> list[tuple[int, ...]]:
    """Windows that do not overlap; a remainder is dropped.

    Where the tokenizer puts a token at the beginning of a text, it takes the place of each window's first.
    """
    if context < LEAST_CONTEXT:
        raise UserError(f"a context of {context} tokens is too short", hint=f"use {LEAST_CONTEXT} or more, such as 512")
    if len(tokens) < context:
        raise UserError(f"the text has {len(tokens)} tokens, a window takes {context}", hint="use a longer text or a shorter context")
    starts = range(0, len(tokens) - context + 1, context)
    bos = tokenizer.bos_token_id if tokens[0] == tokenizer.bos_token_id else None
    return [(tokens[start] if bos is None else bos, *tokens[start + 1 : start + context]) for start in starts]


def _text_tokens(file: Path, tokenizer: Tokenizer) -> list[int]:
    try:
        return tokenizer.encode(_read(file).decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 at byte {error.start}", hint="convert it, or choose another text") from error


def conversations(files: ModelFiles, file: Path, tokenizer: Tokenizer) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Token ids of each conversation and the positions of what the assistant says, with the token that ends its turn."""
    template = load_chat_template(files, tokenizer)
    if template is None:
        raise UserError(f"{files.name} has no chat template, so it cannot read conversations", hint="use a text file")
    for number, line in enumerate(_read(file).splitlines(), 1):
        messages = _messages(f"{file}:{number}", line)
        ids: list[int] = []
        scored: list[int] = []
        for end in (i for i, message in enumerate(messages) if message.role == "assistant"):
            asked, ids = _ids(template, tokenizer, messages[:end], True), _ids(template, tokenizer, messages[: end + 1], False)
            if ids[: len(asked)] != asked:
                raise UserError(f"{file}:{number}: the chat template writes earlier turns anew", hint="use conversations of one turn")
            scored += range(len(asked), len(ids))
        yield tuple(ids), scored


def _ids(template: ChatTemplate, tokenizer: Tokenizer, messages: list[Message], is_open: bool) -> list[int]:
    return tokenizer.encode(template.render(messages, add_generation_prompt=is_open), add_special_tokens=False)


def _messages(place: str, line: bytes) -> list[Message]:
    try:
        read = msgspec.json.decode(line)
        return msgspec.convert(read["messages"] if isinstance(read, dict) else read, list[Message])
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, UnicodeDecodeError) as error:
        raise UserError(
            f"{place}: not a conversation: {error}", hint='a line is {"messages": [{"role": "user", "content": "…"}, …]}'
        ) from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", hint="it should be a text file, or conversations as .jsonl") from error
