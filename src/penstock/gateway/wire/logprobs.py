"""Log-probabilities in the two shapes that OpenAI has for them, and in vLLM's for prompts."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from penstock.core.types import TokenLogprob, TopLogprob

FLOOR = -9999.0  # JSON has no infinity


class ChatTop(Struct, frozen=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]


class ChatToken(Struct, frozen=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[ChatTop, ...]


class ChatLogprobs(Struct, frozen=True):
    content: tuple[ChatToken, ...]
    refusal: None = None


class TextLogprobs(Struct, frozen=True):
    """Of `/v1/completions`. The first token of a prompt has no logprob: nothing predicts it."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Ranked(Struct, frozen=True):
    """One token of vLLM's `prompt_logprobs`. `rank` is None beyond the alternatives asked for."""

    logprob: float
    rank: int | None
    decoded_token: str


def chat_logprobs(tokens: Sequence[TokenLogprob], *, as_ids: bool) -> ChatLogprobs:
    """`as_ids`: name tokens "token_id:7" instead of by their text."""
    return ChatLogprobs(tuple(_chat_token(token, as_ids) for token in tokens))


def text_logprobs(tokens: Sequence[TokenLogprob], *, as_ids: bool, offset: int) -> TextLogprobs:
    """`offset`: characters of the choice's text before the first of these tokens."""
    names = [_name(token, as_ids) for token in tokens]
    offsets = []
    for name in names:
        offsets.append(offset)
        offset += len(name)
    return TextLogprobs(names, [floored(token.logprob) for token in tokens], [_tops(token, as_ids) for token in tokens], offsets)


def chained(first: TextLogprobs, second: TextLogprobs) -> TextLogprobs:
    """Two stretches of the same text; the offsets of the second count from where the first ends."""
    end = text_end(first)
    return TextLogprobs(
        first.tokens + second.tokens,
        first.token_logprobs + second.token_logprobs,
        first.top_logprobs + second.top_logprobs,
        first.text_offset + [end + offset for offset in second.text_offset],
    )


def unpredicted(name: str) -> TextLogprobs:
    """The prompt's first token."""
    return TextLogprobs([name], [None], [None], [0])


def text_end(logprobs: TextLogprobs) -> int:
    """Characters up to the end of the last token."""
    return logprobs.text_offset[-1] + len(logprobs.tokens[-1]) if logprobs.tokens else 0


def width(tokens: Sequence[TokenLogprob], *, as_ids: bool) -> int:
    """Characters of the tokens' names."""
    return sum(len(_name(token, as_ids)) for token in tokens)


def prompt_logprobs(tokens: Sequence[TokenLogprob | None]) -> list[dict[str, Ranked] | None]:
    """For each token of the prompt: the token itself and its alternatives, by id."""
    return [None if token is None else _ranked(token) for token in tokens]


def floored(logprob: float) -> float:
    return max(logprob, FLOOR)


def _chat_token(token: TokenLogprob, as_ids: bool) -> ChatToken:
    name = _name(token, as_ids)
    tops = tuple(ChatTop(top_name := _name(top, as_ids), floored(top.logprob), _bytes(top_name)) for top in token.top)
    return ChatToken(name, floored(token.logprob), _bytes(name), tops)


def _tops(token: TokenLogprob, as_ids: bool) -> dict[str, float]:
    """The alternatives and the token itself. Of two tokens with the same text the likelier one stays."""
    tops: dict[str, float] = {}
    for top in token.top:
        tops.setdefault(_name(top, as_ids), floored(top.logprob))
    tops.setdefault(_name(token, as_ids), floored(token.logprob))
    return tops


def _ranked(token: TokenLogprob) -> dict[str, Ranked]:
    ranked = {str(top.token_id): Ranked(floored(top.logprob), rank, top.token) for rank, top in enumerate(token.top, start=1)}
    ranked.setdefault(str(token.token_id), Ranked(floored(token.logprob), None, token.token))
    return ranked


def _name(token: TokenLogprob | TopLogprob, as_ids: bool) -> str:
    return f"token_id:{token.token_id}" if as_ids else token.token


def _bytes(text: str) -> tuple[int, ...]:
    return tuple(text.encode("utf-8", errors="replace"))
