"""Answers of OpenAI-compatible servers, chat and text, whole and streamed, as our events.

Decoding is typed and lenient: what a server leaves out has a default, what it adds is skipped. Plain pieces of one choice that
came together go on together, so that a burst costs little more than one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from penstock.core.errors import UpstreamFailed
from penstock.core.types import (
    Delta,
    Finish,
    FinishReason,
    Request,
    TokenLogprob,
    ToolCallPiece,
    TopLogprob,
    Usage,
    Vectors,
)
from penstock.upstream.reasons import overall, reason_of
from penstock.upstream.refusal import UNREADABLE, read_error, translated
from penstock.upstream.usage import OpenAIUsage, counted, estimated

DONE = b"[DONE]"
UNKNOWN_ID = -1  # of a token that a server names only by its text
REASONS: dict[str, FinishReason] = {
    "length": "length", "max_tokens": "length", "model_length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls",
    "content_filter": "content_filter", "abort": "abort", "error": "error", "insufficient_system_resource": "error",
}  # fmt: skip


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, object] | None = None  # Ollama has sent objects


class CallPiece(Struct):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Piece(Struct):
    """A chunk's `delta`, or a whole `message`. Mistral's content may be a list of parts; `reasoning` has two names."""

    content: str | list[dict[str, object]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[CallPiece] | None = None


class TopBody(Struct):
    token: str = ""
    logprob: float | None = None


class TokenBody(TopBody):
    top_logprobs: list[TopBody] | None = None


class Logprobs(Struct):
    """Chat's `content`, or the four lists of text completions."""

    content: list[TokenBody] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None


class Choice(Struct):
    index: int = 0
    delta: Piece | None = None
    message: Piece | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None


class Chunk(Struct):
    """A chunk, or a whole answer, or an error in its place."""

    choices: list[Choice] | None = None
    usage: OpenAIUsage | None = None
    error: object = None
    kind: str = msgspec.field(name="object", default="")


_decode = msgspec.json.Decoder(Chunk).decode


class OpenAIReader:
    """One answer. Feed it what came, give on what it makes of that; `usage` is right at any time."""

    def __init__(self, upstream: str, request: Request) -> None:
        self.done = False
        self._upstream = upstream
        self._request = request
        self._said: OpenAIUsage | None = None
        self._reasons: dict[int, FinishReason] = {}  # of choices that have ended
        self._calls: dict[int, list[str | None]] = {}  # by choice: the ids of its tool calls
        self._texts: list[str] = []  # plain pieces that wait to leave together, all of the choice `_index`
        self._index = 0
        self._pieces = self._chars = self._reasoning = 0  # delivered so far

    @property
    def started(self) -> bool:
        """Whether anything has come that costs."""
        return bool(self._pieces) or self._said is not None

    def read(self, events: Iterable[bytes]) -> list[Delta | Vectors]:
        """What these events, or this one whole answer, bring. Raises UpstreamFailed for what makes no sense, and what the server raised."""
        deltas: list[Delta | Vectors] = []
        for event in events:
            if event == DONE:
                self.done = True
                break
            try:
                chunk = _decode(event)
            except UNREADABLE as error:
                raise UpstreamFailed(f"the upstream {self._upstream!r} sent what is no chunk: {error}") from None
            if chunk.error is not None or chunk.kind == "error":
                self._raise(event)
            if chunk.usage is not None:
                self._said = chunk.usage
            for choice in chunk.choices or ():
                self._take(choice, deltas)
        self._flush(deltas)
        return deltas

    def end(self) -> Iterator[Delta | Finish]:
        """The end of the answer, once all has come. Raises UpstreamFailed where it was cut off."""
        missing = [index for index in range(self._request.n) if index not in self._reasons]
        if missing and not self.done:
            raise UpstreamFailed(f"the upstream {self._upstream!r} broke off its answer")
        for index in missing:
            self._reasons[index] = "stop"
            yield Delta(index=index, finish_reason="stop")
        yield Finish(reason=overall(self._reasons.values()), usage=self.usage())

    def usage(self) -> Usage:
        """What the server said, else what was delivered."""
        usage = self._said.usage() if self._said is not None else None
        return usage or estimated(self._request, counted(self._pieces, self._chars), reasoning=self._reasoning)

    def _take(self, choice: Choice, deltas: list[Delta | Vectors]) -> None:
        """The next piece. A plain one only waits."""
        if not 0 <= choice.index < self._request.n:
            raise UpstreamFailed(f"the upstream {self._upstream!r} sent choice {choice.index} of {self._request.n}")
        piece = choice.delta
        content = choice.text if piece is None else piece.content
        if (
            content.__class__ is str
            and choice.finish_reason is None
            and choice.logprobs is None
            and choice.token_ids is None
            and (piece is None or (piece.tool_calls is None and not piece.reasoning_content and not piece.reasoning))
            and choice.message is None
        ):
            if content:
                if choice.index != self._index:
                    self._flush(deltas)
                    self._index = choice.index
                self._texts.append(content)
            return
        self._flush(deltas)
        delta = self._whole(choice)
        if delta.text or delta.reasoning or delta.tool_calls or delta.token_ids or delta.finish_reason:
            deltas.append(delta)

    def _flush(self, deltas: list[Delta | Vectors]) -> None:
        if texts := self._texts:
            text = texts[0] if len(texts) == 1 else "".join(texts)
            self._pieces += len(texts)
            self._chars += len(text)
            deltas.append(Delta(index=self._index, text=text, num_pieces=len(texts)))
            self._texts = []

    def _whole(self, choice: Choice) -> Delta:
        """A piece with all that it may have."""
        piece = choice.delta or choice.message or Piece(content=choice.text)
        text, reasoning = _parts(piece)
        logprobs = _logprobs(choice.logprobs) if self._request.sampling.logprobs is not None and choice.logprobs is not None else None
        calls = self._tool_calls(choice.index, piece.tool_calls or ())
        tokens = len(choice.token_ids or ()) or len(logprobs or ()) or bool(text or reasoning or calls)
        self._count(tokens, len(text) + len(reasoning) + sum(len(call.arguments) for call in calls), is_reasoning=bool(reasoning))
        if choice.finish_reason is not None:
            self._reasons[choice.index] = reason_of(self._upstream, choice.finish_reason, REASONS)
        return Delta(
            index=choice.index,
            text=text,
            reasoning=reasoning,
            tool_calls=calls,
            token_ids=tuple(choice.token_ids or ()),
            logprobs=logprobs,
            finish_reason=self._reasons[choice.index] if choice.finish_reason is not None else None,
            stop_reason=choice.stop_reason,
        )

    def _count(self, tokens: int, chars: int, *, is_reasoning: bool) -> None:
        self._pieces += tokens
        self._chars += chars
        self._reasoning += tokens if is_reasoning else 0

    def _tool_calls(self, choice: int, pieces: Sequence[CallPiece]) -> tuple[ToolCallPiece, ...]:
        """Calls numbered as they come: some servers leave the index out, some give every call the same."""
        ids = self._calls.setdefault(choice, []) if pieces else []
        calls = []
        for piece in pieces:
            function = piece.function or Function()
            place = len(ids) - 1 if piece.index is None else piece.index
            if piece.id and (not 0 <= place < len(ids) or (ids[place] or piece.id) != piece.id):
                ids.append(piece.id)
                place = len(ids) - 1
            elif not ids:
                ids.append(piece.id)
                place = 0
            given = function.arguments
            arguments = given if isinstance(given, str) else "" if given is None else msgspec.json.encode(given).decode()
            calls.append(ToolCallPiece(index=min(max(place, 0), len(ids) - 1), id=piece.id, name=function.name, arguments=arguments))
        return tuple(calls)

    def _raise(self, event: bytes) -> None:
        error = read_error(event)
        raise translated(self._upstream, error.status, error)


def _parts(piece: Piece) -> tuple[str, str]:
    """Text and reasoning."""
    reasoning = piece.reasoning_content or piece.reasoning or ""
    content = piece.content
    if isinstance(content, str) or content is None:
        return content or piece.refusal or "", reasoning
    text = "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    thoughts = [part["thinking"] for part in content if isinstance(part.get("thinking"), list)]
    inner = "".join(str(thought.get("text", "")) for thinking in thoughts for thought in thinking)  # type: ignore[attr-defined]
    return text, reasoning + inner


def _logprobs(found: Logprobs) -> tuple[TokenLogprob, ...] | None:
    if found.content is not None:
        return tuple(_scored(token) for token in found.content)
    if found.tokens is None or found.token_logprobs is None:
        return None
    tops = found.top_logprobs or [None] * len(found.tokens)
    return tuple(
        TokenLogprob(UNKNOWN_ID, token, logprob or 0.0, tuple(_top(*pair) for pair in (top or {}).items()))
        for token, logprob, top in zip(found.tokens, found.token_logprobs, tops, strict=False)
    )


def _scored(token: TokenBody) -> TokenLogprob:
    tops = tuple(_top(top.token, top.logprob) for top in token.top_logprobs or ())
    return TokenLogprob(UNKNOWN_ID, token.token, token.logprob or 0.0, tops)


def _top(token: str, logprob: float | None) -> TopLogprob:
    return TopLogprob(UNKNOWN_ID, token, logprob or 0.0)
