"""Gemini's generateContent: a `Request` as its body, its answers as our events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct, field

from penstock.core.errors import UpstreamFailed
from penstock.core.types import Delta, Finish, FinishReason, Message, ModelCard, Request, Tool, ToolCallPiece, ToolChoice, Usage, Vectors
from penstock.upstream.anthropic_request import arguments_of
from penstock.upstream.honoured import refuse_beyond
from penstock.upstream.reasons import overall, reason_of
from penstock.upstream.refusal import UNREADABLE, said, translated
from penstock.upstream.usage import GeminiUsage, counted, estimated

REASONS: dict[str, FinishReason] = {
    "STOP": "stop", "MAX_TOKENS": "length", "MALFORMED_FUNCTION_CALL": "error", "OTHER": "error", "LANGUAGE": "error",
}  # fmt: skip
_SAMPLED = {
    "max_tokens": "maxOutputTokens", "temperature": "temperature", "top_p": "topP", "top_k": "topK", "stop": "stopSequences",
    "seed": "seed", "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty",
}  # fmt: skip
_FIELDS = ("tools", "tool_choice", "response_format", "n", "continue_final_message", "add_generation_prompt")
_PLAIN = msgspec.structs.asdict(Request(id="", model="").sampling)


def generate_body(request: Request, card: ModelCard) -> dict[str, object]:
    """Raises Unsupported for what Gemini has no word for, InvalidRequest."""
    refuse_beyond(request, what="Vertex", sampling=_SAMPLED, fields=_FIELDS)
    config = {
        theirs: value
        for name, theirs in _SAMPLED.items()
        if (value := getattr(request.sampling, name)) != _PLAIN[name] or name in request.given
    } | _format(request)  # fmt: skip
    if request.n != 1:
        config["candidateCount"] = request.n
    if "maxOutputTokens" not in config and card.max_output_tokens is not None:
        config["maxOutputTokens"] = card.max_output_tokens
    system, contents = _contents(request.messages or ())
    optional = {
        "systemInstruction": {"parts": system} if system else None,
        "generationConfig": config,
        "tools": [{"functionDeclarations": [_tool(tool) for tool in request.tools]}] if request.tools else None,
        "toolConfig": _choice(request.tool_choice) if request.tools and request.tool_choice is not None else None,
    }
    return {"contents": contents, **{name: value for name, value in optional.items() if value}}


def _contents(messages: Sequence[Message]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The system's words, and turns. An answer of a tool is named by its function, not by its call."""
    system: list[dict[str, object]] = []
    turns: list[tuple[str, list[dict[str, object]]]] = []
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    for message in messages:
        if message.role in ("system", "developer"):
            system.append({"text": message.content})
            continue
        role = "model" if message.role == "assistant" else "user"
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        if message.role == "tool":
            name = names.get(message.tool_call_id or "", message.name or "")
            turns[-1][1].append({"functionResponse": {"name": name, "response": {"output": message.content}}})
            continue
        if message.content or not message.tool_calls:
            turns[-1][1].append({"text": message.content})
        turns[-1][1].extend({"functionCall": {"name": c.name, "args": arguments_of(c.arguments)}} for c in message.tool_calls)
    return system, [{"role": role, "parts": parts} for role, parts in turns]


def _tool(tool: Tool) -> dict[str, object]:
    declared: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        declared["description"] = tool.description
    return {**declared, "parametersJsonSchema": tool.parameters} if tool.parameters else declared


def _choice(choice: ToolChoice) -> dict[str, object]:
    calling: dict[str, object] = {"mode": {"auto": "AUTO", "none": "NONE", "required": "ANY"}[choice.mode]}
    if choice.name is not None:
        calling = {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    return {"functionCallingConfig": calling}


def _format(request: Request) -> dict[str, object]:
    wanted = request.response_format or {}
    if wanted.get("type", "text") == "text":
        return {}
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    return {"responseMimeType": "application/json", **({"responseJsonSchema": schema} if schema is not None else {})}


class FunctionCall(Struct):
    id: str | None = None
    name: str = ""
    args: dict[str, object] = {}


class Part(Struct):
    text: str = ""
    thought: bool = False
    call: FunctionCall | None = field(name="functionCall", default=None)


class Content(Struct):
    parts: list[Part] = []


class Candidate(Struct):
    index: int = 0
    content: Content | None = None
    finish_reason: str | None = field(name="finishReason", default=None)


class Feedback(Struct):
    block_reason: str | None = field(name="blockReason", default=None)


class Chunk(Struct):
    """An event of a stream, or a whole answer: the same, and the last one's usage holds."""

    candidates: list[Candidate] = []
    usage: GeminiUsage | None = field(name="usageMetadata", default=None)
    feedback: Feedback | None = field(name="promptFeedback", default=None)
    error: object = None


_decode = msgspec.json.Decoder(Chunk).decode


class GeminiReader:
    """One answer. Its end is the end of the connection: nothing says so before."""

    def __init__(self, upstream: str, request: Request) -> None:
        self.done = False
        self._upstream = upstream
        self._request = request
        self._said: GeminiUsage | None = None
        self._reasons: dict[int, FinishReason] = {}
        self._calls: dict[int, int] = {}  # by choice: how many
        self._chars = self._reasoning = 0

    @property
    def started(self) -> bool:
        return bool(self._chars) or self._said is not None

    def read(self, events: Iterable[bytes]) -> list[Delta | Vectors]:
        deltas: list[Delta | Vectors] = []
        for event in events:
            try:
                chunk = _decode(event)
            except UNREADABLE as error:
                raise UpstreamFailed(f"the upstream {self._upstream!r} sent what is no event: {error}") from None
            if chunk.error is not None:
                error_said = said(chunk.error)
                raise translated(self._upstream, error_said.status, error_said)
            self._said = chunk.usage or self._said
            if chunk.feedback is not None and chunk.feedback.block_reason is not None:
                chunk.candidates = [Candidate(index=index, finish_reason="SAFETY") for index in range(self._request.n)]
            for candidate in chunk.candidates:
                deltas += self._take(candidate)
        return deltas

    def end(self) -> Iterator[Delta | Finish]:
        if len(self._reasons) < self._request.n:
            raise UpstreamFailed(f"the upstream {self._upstream!r} broke off its answer")
        yield Finish(reason=overall(self._reasons.values()), usage=self.usage())

    def usage(self) -> Usage:
        """Each event counts what came so far."""
        usage = self._said.usage() if self._said is not None else None
        return usage or estimated(self._request, counted(0, self._chars), reasoning=counted(0, self._reasoning))

    def _take(self, candidate: Candidate) -> list[Delta]:
        parts = candidate.content.parts if candidate.content is not None else []
        text = "".join(part.text for part in parts if not part.thought)
        reasoning = "".join(part.text for part in parts if part.thought)
        calls = tuple(self._call(candidate.index, part.call) for part in parts if part.call is not None)
        self._chars += len(text) + len(reasoning)
        self._reasoning += len(reasoning)
        reason: FinishReason | None = None
        if candidate.finish_reason is not None:
            reason = reason_of(self._upstream, candidate.finish_reason, REASONS, "content_filter")
            if reason == "stop" and candidate.index in self._calls:
                reason = "tool_calls"
            self._reasons[candidate.index] = reason
        if not text and not reasoning and not calls and reason is None:
            return []
        return [Delta(index=candidate.index, text=text, reasoning=reasoning, tool_calls=calls, finish_reason=reason)]

    def _call(self, choice: int, call: FunctionCall) -> ToolCallPiece:
        """A call comes whole; without an id of its own it gets one by its place."""
        number = self._calls.get(choice, 0)
        self._calls[choice] = number + 1
        arguments = msgspec.json.encode(call.args).decode()
        self._chars += len(arguments)
        return ToolCallPiece(index=number, id=call.id or f"call_{choice}_{number}", name=call.name, arguments=arguments)
