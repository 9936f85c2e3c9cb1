"""The input of a response: its items become the turns of a chat.

What one assistant did between two turns of others (its reasoning, its words, its calls) is one message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import cast

from msgspec import Raw, Struct, structs

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import Message, Role, ToolCall
from penstock.gateway.wire.decode import decode_inner
from penstock.gateway.wire.fields import PART_NEUTRAL, Neutral
from penstock.gateway.wire.tools import check_name

ROLES = ("system", "developer", "user", "assistant")
KINDS = ("message", "function_call", "function_call_output", "reasoning")
_DIRECT = Neutral("only models call tools", ({"type": "direct"},))
_MESSAGE_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {"phase": Neutral("messages have no phases"), "name": Neutral("it goes in chats")}
)
_CALL_NEUTRAL: Mapping[str, Neutral] = MappingProxyType({"caller": _DIRECT, "namespace": Neutral("tools have no namespaces")})
_REASONING_NEUTRAL: Mapping[str, Neutral] = MappingProxyType({"encrypted_content": Neutral("reasoning is not encrypted here")})
_PART_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        **PART_NEUTRAL,
        "file_id": Neutral("files are not kept"),
        "file_data": Neutral("only text is supported"),
        "detail": Neutral("only text is supported"),
        "annotations": Neutral("annotations are not supported", ([],)),
    }
)


class ItemFields(Struct, kw_only=True):
    """What every item may have. `id` and `status` are as an earlier response gave them; they have no effect."""

    type: str = "message"
    id: str | None = None
    status: str | None = None


class MessageItem(ItemFields, kw_only=True):
    role: str
    content: str | list[dict[str, Raw]] | None = None


class CallItem(ItemFields, kw_only=True):
    call_id: str
    name: str
    arguments: str


class OutputItem(ItemFields, kw_only=True):
    call_id: str
    output: str | list[dict[str, Raw]]


class ReasoningItem(ItemFields, kw_only=True):
    summary: list[dict[str, Raw]] | None = None
    content: list[dict[str, Raw]] | None = None


class PartFields(Struct, kw_only=True):
    """A part of an item's content. `logprobs` are those of an earlier response; they have no effect."""

    type: str
    text: str | None = None
    logprobs: list[Raw] | None = None


class Turns:
    """The messages so far, and what the assistant has done since the last turn of another."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._assistant: Message | None = None

    def add(self, message: Message) -> None:
        """A turn of its own; of an assistant, one that calls may follow."""
        if message.role != "assistant":
            self._close()
            self.messages.append(message)
            return
        before = self._assistant
        if before is None or before.content or before.tool_calls:
            self._close()
            self._assistant = message
        else:
            self._assistant = structs.replace(message, reasoning=before.reasoning)

    def think(self, reasoning: str) -> None:
        """Reasoning goes before what the assistant then says or calls."""
        if self._assistant is not None and (self._assistant.content or self._assistant.tool_calls):
            self._close()
        self._assistant = Message(role="assistant", content="", reasoning=reasoning)

    def call(self, call: ToolCall) -> None:
        """A call belongs to what the assistant said before it."""
        turn = self._assistant or Message(role="assistant", content="")
        self._assistant = structs.replace(turn, tool_calls=(*turn.tool_calls, call))

    def end(self) -> tuple[Message, ...]:
        self._close()
        return tuple(self.messages)

    def _close(self) -> None:
        if self._assistant is not None:
            self.messages.append(self._assistant)
            self._assistant = None


def read_input(instructions: str | None, given: str | Sequence[dict[str, Raw]] | None) -> tuple[Message, ...]:
    """The conversation; instructions come first, as the system's. Raises InvalidRequest, Unsupported."""
    if not given:
        raise InvalidRequest("input is missing or empty", hint="send a text, or a list of items", param="input")
    turns = Turns()
    if instructions:
        turns.add(Message(role="system", content=instructions))
    if isinstance(given, str):
        turns.add(Message(role="user", content=given))
    else:
        for place, raw in enumerate(given):
            _add(turns, f"input[{place}]", raw)
    return turns.end()


def _add(turns: Turns, at: str, raw: dict[str, Raw]) -> None:
    kind = bytes(raw.get("type", Raw(b'"message"'))).decode().strip('"')
    if kind == "message":
        turns.add(_message(at, decode_inner(at, raw, MessageItem, _MESSAGE_NEUTRAL)))
    elif kind == "function_call":
        turns.call(_call(at, decode_inner(at, raw, CallItem, _CALL_NEUTRAL)))
    elif kind == "function_call_output":
        answered = decode_inner(at, raw, OutputItem, _CALL_NEUTRAL)
        check_name(f"{at}.call_id", answered.call_id)
        content = _text(f"{at}.output", answered.output, ("input_text",))
        turns.add(Message(role="tool", content=content, tool_call_id=answered.call_id))
    elif kind == "reasoning":
        thought = decode_inner(at, raw, ReasoningItem, _REASONING_NEUTRAL)
        kinds = ("reasoning_text", "summary_text")
        turns.think(_text(f"{at}.content", thought.content or thought.summary or "", kinds))
    else:
        raise Unsupported(f"{at}.type is {kind[:40]!r}", hint=f"{', '.join(KINDS)} go", param=f"{at}.type")


def _message(at: str, fields: MessageItem) -> Message:
    if fields.role not in ROLES:
        raise InvalidRequest(f"{at}.role is {fields.role[:40]!r}", hint=f"one of {', '.join(ROLES)}", param=f"{at}.role")
    if not fields.content and not isinstance(fields.content, str):
        raise InvalidRequest(f"{at}.content is missing or empty", param=f"{at}.content")
    kinds = ("output_text", "input_text") if fields.role == "assistant" else ("input_text",)
    return Message(role=cast(Role, fields.role), content=_text(f"{at}.content", fields.content, kinds))


def _call(at: str, fields: CallItem) -> ToolCall:
    check_name(f"{at}.call_id", fields.call_id)
    check_name(f"{at}.name", fields.name)
    return ToolCall(id=fields.call_id, name=fields.name, arguments=fields.arguments)


def _text(at: str, content: str | Sequence[dict[str, Raw]], kinds: Sequence[str]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_part(f"{at}[{place}]", raw, kinds) for place, raw in enumerate(content))


def _part(at: str, raw: dict[str, Raw], kinds: Sequence[str]) -> str:
    part = decode_inner(at, raw, PartFields, _PART_NEUTRAL)
    if part.type not in kinds:
        raise Unsupported(f"{at}.type is {part.type[:40]!r}: only text is supported", hint=f"{' or '.join(kinds)} goes", param=f"{at}.type")
    if part.text is None:
        raise InvalidRequest(f"{at}.text is missing", param=f"{at}.text")
    return part.text
