"""JSON schemas of the wire structs: what the code reads and writes, with the bounds and the refusals of the fields table.

A field that holds JSON to be decoded later (`Raw`) is an object to msgspec; `INNER` says which structs it is decoded to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from penstock.gateway.wire import (
    chat,
    completions,
    embeddings,
    messages,
    messages_fields,
    responses,
    responses_answer,
    responses_input,
    tokens,
    tools,
)
from penstock.gateway.wire.call import SANE_ID
from penstock.gateway.wire.fields import (
    INT32,
    MAX_LABEL_CHARS,
    MAX_LABELS,
    MAX_NAME_CHARS,
    MAX_PROMPTS,
    MAX_STOP_CHARS,
    MESSAGE_NEUTRAL,
    PART_NEUTRAL,
    RANGES,
    SIZES,
    Neutral,
)

Schema = dict[str, Any]
Kind = type[Struct]
Known = tuple[Mapping[str, Neutral], Iterable[str]]  # fields beside the struct's: not honoured, and recorded

ROOT = "#/components/schemas/"
_ROOM = "penstock.gateway.wire."
_ANY: Schema = {"description": "any JSON value"}
_LABEL: Schema = {"type": "string", "maxLength": MAX_LABEL_CHARS}

_ITEMS = (responses_input.MessageItem, responses_input.CallItem, responses_input.OutputItem, responses_input.ReasoningItem)
_BLOCKS = tuple(messages_fields.BLOCKS.values())

_PROMPT: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("messages", (messages_fields.TurnFields,)),
    ("system", (messages_fields.TextFields,)),
    ("tools", (messages_fields.ToolFields,)),
    ("tool_choice", (messages_fields.ChoiceFields,)),
    ("output_config", (messages_fields.OutputFields,)),
)

INNER: Mapping[tuple[Kind, str], tuple[Kind, ...]] = MappingProxyType(
    {
        (chat.ChatFields, "messages"): (chat.MessageFields,),
        (chat.ChatFields, "tools"): (tools.ToolFields,),
        (chat.ChatFields, "tool_choice"): (tools.ChoiceFields,),
        (chat.ChatFields, "response_format"): (tools.FormatFields,),
        (chat.MessageFields, "content"): (chat.PartFields,),
        (chat.MessageFields, "tool_calls"): (tools.CallFields,),
        (tools.ToolFields, "function"): (tools.FunctionFields,),
        (tools.ChoiceFields, "function"): (tools.NamedFields,),
        (tools.CallFields, "function"): (tools.CalledFields,),
        (tools.FormatFields, "json_schema"): (tools.SchemaFields,),
        (tokens.TokenizeFields, "messages"): (chat.MessageFields,),
        (responses.ResponsesFields, "input"): _ITEMS,
        (responses.ResponsesFields, "tools"): (responses.FunctionToolFields,),
        (responses.ResponsesFields, "tool_choice"): (responses.NamedChoiceFields,),
        (responses.ResponsesFields, "text"): (responses.TextFields,),
        (responses.ResponsesFields, "reasoning"): (responses.ReasoningFields,),
        (responses.TextFields, "format"): (responses.FlatFormatFields,),
        (responses_input.MessageItem, "content"): (responses_input.PartFields,),
        (responses_input.OutputItem, "output"): (responses_input.PartFields,),
        (responses_input.ReasoningItem, "summary"): (responses_input.PartFields,),
        (responses_input.ReasoningItem, "content"): (responses_input.PartFields,),
        (messages_fields.TurnFields, "content"): _BLOCKS,
        (messages_fields.ToolResultFields, "content"): (messages_fields.TextFields,),
        **{(messages_fields.MessagesFields, name): kinds for name, kinds in _PROMPT},
        **{(messages_fields.CountFields, name): kinds for name, kinds in _PROMPT},
        (messages_fields.OutputFields, "format"): (messages_fields.FormatFields,),
    }
)

NEUTRAL: Mapping[Kind, Mapping[str, Neutral]] = MappingProxyType(
    {
        chat.MessageFields: MESSAGE_NEUTRAL,
        chat.PartFields: PART_NEUTRAL,
        messages_fields.ToolFields: messages_fields.TOOL_NEUTRAL,
        **dict.fromkeys(_BLOCKS, messages_fields.BLOCK_NEUTRAL),
    }
)

REQUIRED: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        chat.ChatFields: ("messages",),
        completions.CompletionFields: ("prompt",),
        responses.ResponsesFields: ("input",),
        messages_fields.MessagesFields: ("messages", "max_tokens"),
        messages_fields.CountFields: ("messages",),
        embeddings.EmbeddingFields: ("input",),
        tokens.DetokenizeFields: ("tokens",),
        tools.ToolFields: ("function",),
        tools.CallFields: ("function",),
        chat.PartFields: ("text",),
        responses_input.PartFields: ("text",),
        responses_input.MessageItem: ("content",),
        messages_fields.TurnFields: ("content",),
    }
)

_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS}
_TOOL_NAME: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9_.-]{1,128}$"}


_TEXT: Schema = {"type": "string"}
_NULL: Schema = {"type": "null"}
_STOP: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS}
_TOKEN: Schema = {"type": "integer", "minimum": 0, "maximum": INT32}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _optional(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NULL]}


def _items(schema: Schema, *, least: int = 0, most: int) -> Schema:
    return {"type": "array", "items": schema, "minItems": least, "maxItems": most}


def _texts_or_tokens(text: Schema, most: int) -> Schema:
    """One text, several, token ids, or several lists of them."""
    ids = _items(_TOKEN, least=1, most=INT32)
    return {"anyOf": [text, _items(text, least=1, most=most), ids, _items(ids, least=1, most=most)]}


ANYWHERE: Mapping[str, Schema] = MappingProxyType(
    {
        "stop": {"anyOf": [_STOP, _items(_STOP, most=SIZES["stop"]), _NULL]},
        "stop_sequences": _optional(_items(_STOP, most=SIZES["stop_sequences"])),
        "bad_words": _optional(_items(_STOP, most=SIZES["bad_words"])),
        "cache_salt": _optional(_STOP),
        "stop_token_ids": _optional(_items(_TOKEN, most=SIZES["stop_token_ids"])),
        "allowed_token_ids": _optional(_items(_TOKEN, least=1, most=SIZES["allowed_token_ids"])),
        "request_id": _optional({"type": "string", "pattern": f"^{SANE_ID.pattern}$"}),
        "logit_bias": _optional(
            {
                "type": "object",
                "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"},
                "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
                "maxProperties": SIZES["logit_bias"],
            }
        ),
    }
)
RECORDED: Mapping[str, Schema] = MappingProxyType(
    {"metadata": _optional({"type": "object", "additionalProperties": _LABEL, "maxProperties": MAX_LABELS})}
)

EXACT: Mapping[tuple[Kind, str], Schema] = MappingProxyType(
    {
        (chat.MessageFields, "role"): _one_of(*chat.ROLES),
        (chat.PartFields, "type"): _one_of("text"),
        (chat.PartFields, "text"): _TEXT,
        (completions.CompletionFields, "prompt"): _texts_or_tokens(_TEXT, MAX_PROMPTS),
        (embeddings.EmbeddingFields, "input"): _texts_or_tokens({"type": "string", "minLength": 1}, embeddings.MAX_INPUTS),
        (embeddings.EmbeddingFields, "dimensions"): _optional({"type": "integer", "minimum": 1, "maximum": INT32}),
        (tokens.DetokenizeFields, "tokens"): _items(_TOKEN, most=INT32),
        (tools.ToolFields, "type"): _one_of("function"),
        (tools.ChoiceFields, "type"): _one_of("function"),
        (tools.CallFields, "type"): _one_of("function"),
        (tools.CallFields, "id"): _NAME,
        (tools.CalledFields, "name"): _NAME,
        (tools.FunctionFields, "name"): _TOOL_NAME,
        (tools.FormatFields, "type"): _one_of(*tools.FORMATS),
        (tools.SchemaFields, "name"): _NAME,
        (chat.ChatFields, "reasoning_effort"): _optional(_one_of(*tools.EFFORTS)),
        (chat.ChatFields, "tool_choice"): _optional({"anyOf": [_one_of(*tools.MODES), {"type": "object"}]}),
        (responses.ResponsesFields, "tool_choice"): _optional({"anyOf": [_one_of(*tools.MODES), {"type": "object"}]}),
        (responses.ReasoningFields, "effort"): _optional(_one_of(*tools.EFFORTS)),
        (responses.FunctionToolFields, "type"): _one_of("function"),
        (responses.FunctionToolFields, "name"): _TOOL_NAME,
        (responses.NamedChoiceFields, "type"): _one_of("function"),
        (responses.FlatFormatFields, "type"): _one_of(*tools.FORMATS),
        (responses_input.PartFields, "type"): _one_of("input_text", "output_text", "reasoning_text", "summary_text"),
        (responses_input.PartFields, "text"): _TEXT,
        (responses_input.MessageItem, "type"): _one_of("message"),
        (responses_input.MessageItem, "role"): _one_of(*responses_input.ROLES),
        (responses_input.CallItem, "type"): _one_of("function_call"),
        (responses_input.OutputItem, "type"): _one_of("function_call_output"),
        (responses_input.ReasoningItem, "type"): _one_of("reasoning"),
        (messages_fields.TurnFields, "role"): _one_of(*messages.ROLES),
        (messages_fields.ToolFields, "name"): _TOOL_NAME,
        (messages_fields.ToolUseFields, "id"): _NAME,
        (messages_fields.ToolUseFields, "name"): _NAME,
        (messages_fields.ToolUseFields, "input"): {"type": "object"},
        (messages_fields.ToolResultFields, "tool_use_id"): _NAME,
    }
)


class Variant(Struct, frozen=True):
    """One of the forms that a struct has: `only` replaces properties, `without` has none of these, `required` has these.

    `blocks`: its content is a text, or these.
    """

    only: Schema
    without: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    blocks: tuple[Kind, ...] = ()


VARIANTS: Mapping[Kind, tuple[Variant, ...]] = MappingProxyType(
    {
        chat.MessageFields: (
            Variant({"role": _one_of("system", "developer", "user")}, ("tool_calls", "tool_call_id"), ("content",)),
            Variant({"role": _one_of("assistant")}, ("tool_calls", "tool_call_id"), ("content",)),
            Variant({"role": _one_of("assistant")}, ("tool_call_id",), ("tool_calls",)),
            Variant({"role": _one_of("tool"), "tool_call_id": _NAME}, ("tool_calls",), ("content", "tool_call_id")),
        ),
        messages_fields.TurnFields: (
            Variant({"role": _one_of("system")}, blocks=(messages_fields.TextFields,)),
            Variant({"role": _one_of("user")}, blocks=(messages_fields.TextFields, messages_fields.ToolResultFields)),
            Variant(
                {"role": _one_of("assistant")},
                blocks=(messages_fields.TextFields, messages_fields.ToolUseFields, messages_fields.ThinkingFields),
            ),
        ),
        tokens.TokenizeFields: (
            Variant({}, ("messages", "add_generation_prompt", "continue_final_message", "chat_template_kwargs"), ("prompt",)),
            Variant({}, ("prompt",), ("messages",)),
        ),
    }
)


def schemas_of(requests: Mapping[Kind, Known], answers: Iterable[Kind]) -> tuple[dict[Kind, str], dict[str, Schema]]:
    """A name for each struct, and the schema of each name."""
    inner = dict.fromkeys(kind for kinds in INNER.values() for kind in kinds)
    kinds = list(dict.fromkeys((*requests, *inner, *answers)))
    twins = [_inspectable(kind) for kind in kinds]
    refs, components = msgspec.json.schema_components(twins, ref_template=f"{ROOT}{{name}}", schema_hook=lambda kind: _ANY)
    renamed: dict[str, Schema] = msgspec.json.decode(msgspec.json.encode(components).replace(_ROOM.encode(), b""))
    names = {kind: ref["$ref"].removeprefix(ROOT).removeprefix(_ROOM) for kind, ref in zip(kinds, refs, strict=True)}
    for kind in (*requests, *inner):
        neutral, recorded = requests.get(kind, (NEUTRAL.get(kind, {}), ()))
        _complete(renamed[names[kind]], kind, neutral, recorded, names)
    for kind, variants in VARIANTS.items():
        renamed[names[kind]] = {"anyOf": [_variant(renamed[names[kind]], variant, names) for variant in variants]}
    output = renamed[names[responses_answer.ResponseBody]]["properties"]["output"]
    output["items"] = any_of(names[kind] for kind in _OUTPUTS)
    return names, renamed


_OUTPUTS = (responses_answer.MessageOutput, responses_answer.ReasoningOutput, responses_answer.CallOutput)


def any_of(names: Iterable[str]) -> Schema:
    """One of the schemas of these names."""
    refs = [{"$ref": ROOT + name} for name in names]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def _complete(schema: Schema, kind: Kind, neutral: Mapping[str, Neutral], recorded: Iterable[str], names: Mapping[Kind, str]) -> None:
    """Add what the struct does not say: inner structs, bounds, and fields that are known and not honoured."""
    properties = schema["properties"]
    for name in list(properties):
        if (kind, name) in EXACT or name in ANYWHERE:
            properties[name] = dict(EXACT.get((kind, name)) or ANYWHERE[name])
        else:
            properties[name] = _bounded(name, properties[name])
        if (kind, name) in INNER:
            properties[name] = _with_inner(properties[name], any_of(names[inner] for inner in INNER[kind, name]))
        properties[name].pop("default", None)
    properties.update({name: {**RECORDED.get(name, _optional(_LABEL)), "description": "Recorded in the access log."} for name in recorded})
    properties.update({name: _refused(field) for name, field in neutral.items() if name not in properties})
    required = [*schema.get("required", ()), *REQUIRED.get(kind, ())]
    schema.update(additionalProperties=False, required=required)
    for name in REQUIRED.get(kind, ()):
        if (kind, name) not in EXACT:
            properties[name] = _filled(properties[name])


def _with_inner(schema: Schema, inner: Schema) -> Schema:
    """The same with `inner` for each plain object."""
    if schema.get("type") == "object":
        return inner
    if "items" in schema:
        return {**schema, "items": _with_inner(schema["items"], inner)}
    return {**schema, "anyOf": [_with_inner(option, inner) for option in schema["anyOf"]]} if "anyOf" in schema else schema


def _bounded(name: str, schema: Schema) -> Schema:
    """With the bounds that a field of this name has wherever it is a number or a collection."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_bounded(name, option) for option in schema["anyOf"]]}
    if name in RANGES and schema.get("type") in ("integer", "number"):
        bounds = RANGES[name]
        told = {"minimum": bounds.low, "maximum": bounds.high, "exclusiveMinimum": bounds.above}
        return {**schema, **{word: bound for word, bound in told.items() if bound is not None}}
    if name in SIZES and schema.get("type") in ("array", "object"):
        return {**schema, "maxItems" if schema["type"] == "array" else "maxProperties": SIZES[name]}
    return dict(schema)


def _variant(schema: Schema, variant: Variant, names: Mapping[Kind, str]) -> Schema:
    left = {name: value for name, value in schema["properties"].items() if name not in variant.without}
    filled = {name: _filled(left[name]) for name in variant.required}
    if variant.blocks:
        blocks = {"type": "array", "items": any_of(names[kind] for kind in variant.blocks), "minItems": 1}
        filled["content"] = {"anyOf": [{"type": "string", "minLength": 1}, blocks]}
    required = list(dict.fromkeys((*schema["required"], *variant.required)))
    return {**schema, "properties": {**left, **filled, **variant.only}, "required": required}


def _refused(neutral: Neutral) -> Schema:
    return {"description": f"Not honoured: {neutral.why}.", "enum": [None, *neutral.values]}


def _filled(schema: Schema) -> Schema:
    """Neither null nor empty."""
    if "anyOf" in schema:
        options = [_filled(option) for option in schema["anyOf"] if option != {"type": "null"}]
        return options[0] if len(options) == 1 else {**schema, "anyOf": options}
    least = {"array": "minItems", "string": "minLength"}.get(schema.get("type", ""))
    return {**schema, least: 1} if least else schema


def _inspectable(kind: Kind) -> Kind:
    """A twin whose unions of structs, which msgspec writes and cannot inspect, may be anything."""
    if kind is not responses_answer.ResponseBody:
        return kind
    twin = []
    for given in msgspec.structs.fields(kind):
        default = {} if given.default is NODEFAULT else {"default": given.default}
        annotation = tuple[object, ...] if given.name == "output" else given.type
        twin.append((given.name, annotation, msgspec.field(name=given.encode_name, **default)))
    return msgspec.defstruct(kind.__name__, twin, kw_only=True, module=kind.__module__)
