"""The body of Anthropic's `/v1/messages` and of `/v1/messages/count_tokens`.

Turns become messages: a `tool_result` is a message of the role "tool", consecutive turns of one role are one, and a last turn of
the assistant is continued. Thinking that a client sends back is the reasoning of its message; what Anthropic has redacted is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import msgspec
from msgspec import Raw, structs

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import Message, Request, Sampling, Tool, ToolCall, ToolChoice
from penstock.gateway.wire.call import Call, Context, GenerationFields, make_request, make_sampling
from penstock.gateway.wire.decode import check_depth, decode_inner
from penstock.gateway.wire.fields import MAX_SCHEMA_DEPTH, MAX_STOP_CHARS
from penstock.gateway.wire.messages_fields import (
    BLOCK_NEUTRAL,
    BLOCKS,
    TOOL_NEUTRAL,
    Block,
    ChoiceFields,
    CountFields,
    FormatFields,
    MessagesFields,
    OutputFields,
    PromptFields,
    RedactedThinkingFields,
    TextFields,
    ThinkingFields,
    ToolFields,
    ToolResultFields,
    ToolUseFields,
    TurnFields,
)
from penstock.gateway.wire.tools import FunctionFields, check_name, make_tool, named_choice, plain_choice, unique_tools

FORMAT_NAME = "answer"  # OpenAI's formats have a name, Anthropic's do not
MODES = {"auto": "auto", "any": "required", "none": "none"}
ROLES = ("user", "assistant", "system")


def messages_call(fields: MessagesFields, context: Context) -> Call:
    """Check the fields against each other and make the call. Raises InvalidRequest, Unsupported."""
    if fields.max_tokens is None:
        raise InvalidRequest("max_tokens is missing", hint="send the most tokens that the answer may have", param="max_tokens")
    if fields.max_tokens == 0:
        raise InvalidRequest("max_tokens is 0; the least is 1", param="max_tokens")
    _check_stops(fields.stop_sequences or ())
    plain = GenerationFields(
        stream=fields.stream,
        temperature=fields.temperature,
        top_k=fields.top_k,
        top_p=fields.top_p,
        stop=fields.stop_sequences or None,
    )
    sampling = make_sampling(plain, context.defaults, max_tokens=fields.max_tokens, logprobs=None)
    answer_id = f"msg_{context.request_id}"
    requests = context.named((_with_prompt(make_request(plain, context, sampling), fields),), answer_id, fields)
    return Call(
        id=answer_id,
        model=context.model,
        created=context.created,
        requests=requests,
        stream=bool(fields.stream),
        explain=context.explains(fields, requests),
    )


def count_request(fields: CountFields, context: Context) -> Request:
    """The request whose prompt is to be counted. Raises InvalidRequest, Unsupported."""
    plain = make_request(GenerationFields(), context, Sampling())
    return structs.replace(_with_prompt(plain, fields), id=context.request_id)


def _with_prompt(request: Request, fields: PromptFields) -> Request:
    messages = _messages(fields)
    continues = messages[-1].role == "assistant"
    if continues and messages[-1].tool_calls:
        raise InvalidRequest("the last turn calls tools, and nothing answers", hint="send a tool_result for each call", param="messages")
    tools = _tools(fields.tools or ())
    choice, parallel = _choice(fields.tool_choice, tools)
    output = OutputFields() if fields.output_config is None else decode_inner("output_config", fields.output_config, OutputFields)
    return structs.replace(
        request,
        messages=messages,
        add_special_tokens=False,  # a template writes its own
        add_generation_prompt=not continues,
        continue_final_message=continues,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel if tools else None,
        response_format=None if output.format is None else _format(output.format),
        reasoning_effort=output.effort,
    )


def _messages(fields: PromptFields) -> tuple[Message, ...]:
    if not fields.messages:
        raise InvalidRequest("messages is missing or empty", hint='send [{"role": "user", "content": "…"}]', param="messages")
    messages = [] if not fields.system else [Message(role="system", content=_only_text("system", fields.system))]
    for place, given in enumerate(fields.messages):
        for message in _turn(f"messages[{place}]", given):
            if messages and _same_speaker(messages[-1], message):
                messages[-1] = _merged(messages[-1], message)
            else:
                messages.append(message)
    if not messages:
        raise InvalidRequest("messages hold nothing but redacted thinking", param="messages")
    return tuple(messages)


def _same_speaker(former: Message, latter: Message) -> bool:
    return former.role == latter.role and former.role in ("user", "assistant")


def _merged(former: Message, latter: Message) -> Message:
    return structs.replace(
        former,
        content=_joined(former.content, latter.content),
        reasoning=_joined(former.reasoning, latter.reasoning),
        tool_calls=former.tool_calls + latter.tool_calls,
    )


def _joined(*texts: str) -> str:
    return "\n".join(text for text in texts if text)


def _turn(at: str, given: dict[str, Raw]) -> list[Message]:
    """The messages of one turn: the tools' results first, then what is said."""
    fields = decode_inner(at, given, TurnFields)
    if fields.role not in ROLES:
        raise InvalidRequest(f"{at}.role is {fields.role[:40]!r}", hint=f"one of {', '.join(ROLES)}", param=f"{at}.role")
    role = cast(Literal["user", "assistant", "system"], fields.role)
    blocks = _blocks(f"{at}.content", fields.content)
    text = _joined(*(block.text for block in blocks if isinstance(block, TextFields)))
    thought = _joined(*(block.thinking for block in blocks if isinstance(block, ThinkingFields)))
    calls = tuple(_call(f"{at}.content", block) for block in blocks if isinstance(block, ToolUseFields))
    results = [_result(f"{at}.content", block) for block in blocks if isinstance(block, ToolResultFields)]
    if calls and role != "assistant":
        raise InvalidRequest(f"{at} is from {role!r} and has a tool_use: only an assistant calls tools", param=f"{at}.content")
    if results and role != "user":
        raise InvalidRequest(f"{at} is from {role!r} and has a tool_result: it goes in the user's turn", param=f"{at}.content")
    if thought and role != "assistant":
        raise InvalidRequest(f"{at} is from {role!r} and has thinking: only an assistant thinks", param=f"{at}.content")
    if text or calls or thought:
        return [*results, Message(role=role, content=text, reasoning=thought, tool_calls=calls)]
    if not results and not any(isinstance(block, RedactedThinkingFields) for block in blocks):
        raise InvalidRequest(f"{at}.content is empty", hint="send a text", param=f"{at}.content")
    return results


def _blocks(at: str, content: str | Sequence[dict[str, Raw]] | None) -> list[Block]:
    if isinstance(content, str):
        return [TextFields(type="text", text=content)]
    return [_block(f"{at}[{place}]", given) for place, given in enumerate(content or ())]


def _block(at: str, given: dict[str, Raw]) -> Block:
    try:
        kind = msgspec.json.decode(given.get("type", b"null"), type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest(f"{at}.type is missing or no text", hint=f"one of {', '.join(BLOCKS)}", param=f"{at}.type") from None
    if kind not in BLOCKS:
        raise Unsupported(f"{at}.type is {kind[:40]!r}: only text and calls of tools are supported", param=f"{at}.type")
    return decode_inner(at, given, BLOCKS[kind], BLOCK_NEUTRAL)


def _only_text(at: str, content: str | Sequence[dict[str, Raw]]) -> str:
    blocks = _blocks(at, content)
    texts = [block.text for block in blocks if isinstance(block, TextFields)]
    if len(texts) < len(blocks):
        raise Unsupported(f"{at} has a block that is no text", param=at)
    return "\n".join(texts)


def _call(at: str, block: ToolUseFields) -> ToolCall:
    check_name(f"{at}: tool_use.id", block.id)
    check_name(f"{at}: tool_use.name", block.name)
    try:
        arguments = msgspec.json.decode(block.input, type=dict[str, object])
    except (msgspec.DecodeError, ValueError):
        raise InvalidRequest(f"{at}: the input of {block.name[:40]!r} is not an object", param=at) from None
    check_depth(f"{at}: tool_use.input", arguments, most=MAX_SCHEMA_DEPTH)
    return ToolCall(id=block.id, name=block.name, arguments=bytes(block.input).decode())


def _result(at: str, block: ToolResultFields) -> Message:
    """No other dialect can say that a tool has failed, so the text says it."""
    check_name(f"{at}: tool_result.tool_use_id", block.tool_use_id)
    text = _only_text(f"{at}: tool_result.content", block.content or "")
    return Message(role="tool", content=f"Error: {text}" if block.is_error else text, tool_call_id=block.tool_use_id)


def _tools(given: Sequence[dict[str, Raw]]) -> tuple[Tool, ...]:
    return unique_tools([_tool(f"tools[{place}]", raw) for place, raw in enumerate(given)])


def _tool(at: str, given: dict[str, Raw]) -> Tool:
    kind = msgspec.json.decode(given.get("type", b"null"))
    if kind not in (None, "custom"):
        raise Unsupported(f"{at}.type is {str(kind)[:40]!r}: only tools of the client's own are supported", param=f"{at}.type")
    fields = decode_inner(at, given, ToolFields, TOOL_NEUTRAL)
    check_depth(f"{at}.input_schema", fields.input_schema, most=MAX_SCHEMA_DEPTH)
    function = FunctionFields(name=fields.name, description=fields.description, parameters=fields.input_schema, strict=fields.strict)
    return make_tool(at, function)


def _choice(given: dict[str, Raw] | None, tools: Sequence[Tool]) -> tuple[ToolChoice | None, bool | None]:
    """Whether tools must be called, and whether several at once may be."""
    if given is None:
        return None, None
    fields = decode_inner("tool_choice", given, ChoiceFields)
    parallel = None if fields.disable_parallel_tool_use is None else not fields.disable_parallel_tool_use
    if fields.type == "tool":
        if fields.name is None:
            raise InvalidRequest("tool_choice.name is missing", hint="name the tool that must be called", param="tool_choice.name")
        return named_choice(fields.name, tools), parallel
    if fields.name is not None:
        raise InvalidRequest(f"tool_choice.name goes only with the type 'tool', not {fields.type!r}", param="tool_choice.name")
    if fields.type == "any" and not tools:
        raise InvalidRequest("tool_choice is 'any' and there are no tools", hint="send tools", param="tool_choice")
    return plain_choice(MODES[fields.type], tools), parallel


def _format(given: dict[str, Raw]) -> dict[str, object]:
    """In OpenAI's shape."""
    fields = decode_inner("output_config.format", given, FormatFields)
    check_depth("output_config.format.schema", fields.schema, most=MAX_SCHEMA_DEPTH)
    return {"type": "json_schema", "json_schema": {"name": FORMAT_NAME, "schema": fields.schema, "strict": True}}


def _check_stops(stops: Sequence[str]) -> None:
    for stop in stops:
        if not 0 < len(stop) <= MAX_STOP_CHARS:
            raise InvalidRequest(
                f"stop_sequences has a text of {len(stop)} characters; from 1 to {MAX_STOP_CHARS} go", param="stop_sequences"
            )
