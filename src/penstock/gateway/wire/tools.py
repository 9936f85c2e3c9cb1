"""Tools, calls and formats of answers, as every dialect of OpenAI's reads them: from a body to the nouns of `core.types`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
from msgspec import Raw, Struct

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import Tool, ToolCall, ToolChoice
from penstock.gateway.wire.decode import check_depth, decode_inner
from penstock.gateway.wire.fields import MAX_NAME_CHARS, MAX_SCHEMA_DEPTH, Neutral

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
FORMATS = ("text", "json_object", "json_schema")
MODES = ("none", "auto", "required")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_OTHER_TOOLS: Mapping[str, Neutral] = MappingProxyType({"custom": Neutral("only functions are tools here")})


class FunctionFields(Struct, kw_only=True):
    """A function as chat describes it."""

    name: str
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class ToolFields(Struct, kw_only=True):
    type: str
    function: dict[str, Raw] | None = None


class NamedFields(Struct, kw_only=True):
    name: str


class ChoiceFields(Struct, kw_only=True):
    type: str
    function: dict[str, Raw] | None = None


class CalledFields(Struct, kw_only=True):
    name: str
    arguments: str


class CallFields(Struct, kw_only=True):
    """A call in an assistant's message."""

    id: str
    type: str = "function"
    function: dict[str, Raw] | None = None
    index: int | None = None  # streams have it, and clients send it back


class SchemaFields(Struct, kw_only=True):
    name: str
    schema: dict[str, object] | None = None
    description: str | None = None
    strict: bool | None = None


class FormatFields(Struct, kw_only=True):
    type: str
    json_schema: dict[str, Raw] | None = None


def read_tools(given: Sequence[dict[str, Raw]]) -> tuple[Tool, ...]:
    """Chat's tools. Raises InvalidRequest, Unsupported."""
    tools = []
    for place, raw in enumerate(given):
        at = f"tools[{place}]"
        fields = decode_inner(at, raw, ToolFields, _OTHER_TOOLS)
        _only_functions(at, fields.type)
        tools.append(make_tool(f"{at}.function", decode_inner(f"{at}.function", _there(at, fields.function), FunctionFields)))
    return unique_tools(tools)


def make_tool(at: str, fields: FunctionFields) -> Tool:
    """Raises InvalidRequest where the name or the schema is out of bounds."""
    if not _TOOL_NAME.fullmatch(fields.name):
        message = f"{at}.name is {fields.name[:40]!r}; 1 to {MAX_NAME_CHARS} letters, digits and _ . - go"
        raise InvalidRequest(message, param=f"{at}.name")
    check_depth(f"{at}.parameters", fields.parameters or {}, most=MAX_SCHEMA_DEPTH)
    return Tool(name=fields.name, description=fields.description, parameters=fields.parameters or {}, strict=fields.strict)


def unique_tools(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """Raises InvalidRequest where two have the same name: a call could not say which it means."""
    names: set[str] = set()
    for place, tool in enumerate(tools):
        if tool.name in names:
            raise InvalidRequest(f"two tools are called {tool.name!r}", param=f"tools[{place}]")
        names.add(tool.name)
    return tuple(tools)


def read_tool_choice(given: str | dict[str, Raw] | None, tools: Sequence[Tool]) -> ToolChoice | None:
    """Chat's tool_choice. Raises InvalidRequest, Unsupported."""
    if not isinstance(given, dict):
        return plain_choice(given, tools)
    fields = decode_inner("tool_choice", given, ChoiceFields, {"allowed_tools": Neutral("send only the tools that may be called")})
    _only_functions("tool_choice", fields.type)
    named = decode_inner("tool_choice.function", _there("tool_choice", fields.function), NamedFields)
    return named_choice(named.name, tools)


def plain_choice(mode: str | None, tools: Sequence[Tool]) -> ToolChoice | None:
    """A choice by its mode. Without tools there is none to make."""
    if mode is None:
        return None
    if mode not in MODES:
        raise InvalidRequest(f"tool_choice is {mode[:40]!r}", hint=f"one of {', '.join(MODES)}, or a function", param="tool_choice")
    if mode == "required" and not tools:
        raise InvalidRequest("tool_choice is 'required' and there are no tools", hint="send tools", param="tool_choice")
    modes = {"none": ToolChoice(mode="none"), "auto": ToolChoice(mode="auto"), "required": ToolChoice(mode="required")}
    return modes[mode] if tools else None


def named_choice(name: str, tools: Sequence[Tool]) -> ToolChoice:
    """The choice of one function. Raises InvalidRequest where it is not among the tools."""
    if all(tool.name != name for tool in tools):
        known = ", ".join(tool.name for tool in tools) or "none"
        raise InvalidRequest(
            f"tool_choice names {name[:40]!r}, which is not among the tools", hint=f"sent were: {known}", param="tool_choice"
        )
    return ToolChoice(mode="required", name=name)


def read_calls(at: str, given: Sequence[dict[str, Raw]] | None) -> tuple[ToolCall, ...]:
    """The calls of an assistant's message. Raises InvalidRequest, Unsupported."""
    calls = []
    for place, raw in enumerate(given or ()):
        here = f"{at}[{place}]"
        fields = decode_inner(here, raw, CallFields, _OTHER_TOOLS)
        _only_functions(here, fields.type)
        called = decode_inner(f"{here}.function", _there(here, fields.function), CalledFields)
        check_name(f"{here}.id", fields.id)
        check_name(f"{here}.function.name", called.name)
        calls.append(ToolCall(id=fields.id, name=called.name, arguments=called.arguments))
    return tuple(calls)


def read_format(given: dict[str, Raw] | None) -> dict[str, object] | None:
    """Chat's response_format, checked, in its own shape; None where plain text is asked for. Raises InvalidRequest."""
    if given is None:
        return None
    fields = decode_inner("response_format", given, FormatFields)
    if fields.type not in FORMATS:
        raise InvalidRequest(
            f"response_format.type is {fields.type[:40]!r}", hint=f"one of {', '.join(FORMATS)}", param="response_format.type"
        )
    if fields.type != "json_schema":
        return None if fields.type == "text" else {"type": fields.type}
    at = "response_format.json_schema"
    if fields.json_schema is None:
        raise InvalidRequest(f"{at} is missing", param=at)
    return schema_format(at, decode_inner(at, fields.json_schema, SchemaFields))


def schema_format(at: str, fields: SchemaFields) -> dict[str, object]:
    """An answer that fits a schema, in chat's shape. Raises InvalidRequest."""
    check_name(f"{at}.name", fields.name)
    check_depth(f"{at}.schema", fields.schema or {}, most=MAX_SCHEMA_DEPTH)
    schema = {name: value for name, value in msgspec.structs.asdict(fields).items() if value is not None}
    return {"type": "json_schema", "json_schema": schema}


def check_effort(at: str, effort: str | None) -> str | None:
    """Raises InvalidRequest for one that nobody knows."""
    if effort is not None and effort not in EFFORTS:
        raise InvalidRequest(f"{at} is {effort[:40]!r}", hint=f"one of {', '.join(EFFORTS)}", param=at)
    return effort


def check_name(at: str, name: str) -> None:
    """Raises InvalidRequest for a name or an id that is empty or endless."""
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise InvalidRequest(f"{at} has {len(name)} characters; from 1 to {MAX_NAME_CHARS} go", param=at)


def _only_functions(at: str, kind: str) -> None:
    if kind != "function":
        raise Unsupported(f"{at}.type is {kind[:40]!r}: only functions are tools here", param=f"{at}.type")


def _there(at: str, function: dict[str, Raw] | None) -> dict[str, Raw]:
    if function is None:
        raise InvalidRequest(f"{at}.function is missing", param=f"{at}.function")
    return function
