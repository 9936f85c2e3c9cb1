"""The body of `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, get_args

from msgspec import Raw, Struct, structs

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import Message, Role
from penstock.gateway.wire.call import Context, GenerationCall, GenerationFields, make_call, make_request, make_sampling, wanted_tokens
from penstock.gateway.wire.decode import check_depth, decode_inner
from penstock.gateway.wire.fields import MESSAGE_NEUTRAL, PART_NEUTRAL
from penstock.gateway.wire.tools import check_effort, check_name, read_calls, read_format, read_tool_choice, read_tools

ROLES = get_args(Role)


class PartFields(Struct, kw_only=True):
    """One part of a message's content; only text goes."""

    type: str
    text: str | None = None


class MessageFields(Struct, kw_only=True):
    role: str
    content: str | list[dict[str, Raw]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Raw]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # vLLM's newer name for it


class Conversation(Protocol):
    """How messages become a prompt; the same for completions and `/tokenize`."""

    messages: list[dict[str, Raw]] | None
    add_generation_prompt: bool | None
    continue_final_message: bool | None
    chat_template_kwargs: dict[str, object] | None


class ChatFields(GenerationFields, kw_only=True):
    """Every field that `/v1/chat/completions` honours."""

    messages: list[dict[str, Raw]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, object] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Raw]] | None = None
    tool_choice: str | dict[str, Raw] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Raw] | None = None
    reasoning_effort: str | None = None


class Template(Struct, frozen=True, kw_only=True):
    """A conversation and how to render it, checked."""

    messages: tuple[Message, ...]
    add_generation_prompt: bool
    continue_final_message: bool
    chat_template_kwargs: dict[str, object]


def chat_call(fields: ChatFields, context: Context) -> GenerationCall:
    """Check the fields against each other and make the call. Raises InvalidRequest, Unsupported."""
    if fields.top_logprobs is not None and not fields.logprobs:
        raise InvalidRequest("top_logprobs goes only with logprobs", hint="send logprobs true", param="top_logprobs")
    max_tokens = wanted_tokens(fields, context.defaults.max_tokens)
    if max_tokens == 0:
        raise InvalidRequest("max_tokens is 0; the least is 1", param="max_tokens")
    logprobs = (fields.top_logprobs or 0) if fields.logprobs else None
    sampling = make_sampling(fields, context.defaults, max_tokens=max_tokens, logprobs=logprobs)
    template = read_template(fields)
    tools = read_tools(fields.tools or ())
    request = structs.replace(
        make_request(fields, context, sampling),
        messages=template.messages,
        add_special_tokens=bool(fields.add_special_tokens),  # off unless asked for: a template writes its own
        add_generation_prompt=template.add_generation_prompt,
        continue_final_message=template.continue_final_message,
        chat_template_kwargs=template.chat_template_kwargs,
        tools=tools,
        tool_choice=read_tool_choice(fields.tool_choice, tools),
        parallel_tool_calls=fields.parallel_tool_calls if tools else None,
        response_format=read_format(fields.response_format),
        reasoning_effort=check_effort("reasoning_effort", fields.reasoning_effort),
    )
    return make_call(fields, context, (request,), prefix="chatcmpl")


def read_template(fields: Conversation) -> Template:
    """The conversation of `fields`. Raises InvalidRequest, Unsupported."""
    if not fields.messages:
        raise InvalidRequest("messages is missing or empty", hint='send [{"role": "user", "content": "…"}]', param="messages")
    if fields.continue_final_message and fields.add_generation_prompt:
        raise InvalidRequest("a prompt cannot both continue the final message and open a new one", param="continue_final_message")
    check_depth("chat_template_kwargs", fields.chat_template_kwargs or {})
    opens = not fields.continue_final_message if fields.add_generation_prompt is None else fields.add_generation_prompt
    return Template(
        messages=tuple(_message(place, raw) for place, raw in enumerate(fields.messages)),
        add_generation_prompt=opens,
        continue_final_message=bool(fields.continue_final_message),
        chat_template_kwargs=fields.chat_template_kwargs or {},
    )


def _message(place: int, given: dict[str, Raw]) -> Message:
    at = f"messages[{place}]"
    fields = decode_inner(at, given, MessageFields, MESSAGE_NEUTRAL)
    if fields.role not in ROLES:
        raise InvalidRequest(f"{at}.role is {fields.role[:40]!r}", hint=f"one of {', '.join(ROLES)}", param=f"{at}.role")
    calls = read_calls(f"{at}.tool_calls", fields.tool_calls)
    if calls and fields.role != "assistant":
        raise InvalidRequest(f"{at} is from {fields.role!r} and has tool_calls: only an assistant calls tools", param=f"{at}.tool_calls")
    _check_answered(at, fields)
    return Message(
        role=cast(Role, fields.role),
        content="" if calls and not fields.content else _text(f"{at}.content", fields.content),
        name=fields.name,
        tool_calls=calls,
        tool_call_id=fields.tool_call_id,
        reasoning=fields.reasoning_content or fields.reasoning or "",
    )


def _check_answered(at: str, fields: MessageFields) -> None:
    """A tool's message says which call it answers, and no other does."""
    param = f"{at}.tool_call_id"
    if fields.role == "tool" and fields.tool_call_id is None:
        raise InvalidRequest(f"{param} is missing", hint="send the id of the call that it answers", param=param)
    if fields.tool_call_id is not None:
        check_name(param, fields.tool_call_id)
        if fields.role != "tool":
            raise InvalidRequest(f"{at} is from {fields.role!r}: only a tool's message answers a call", param=param)


def _text(at: str, content: str | Sequence[dict[str, Raw]] | None) -> str:
    if isinstance(content, str):
        return content
    if not content:
        raise InvalidRequest(f"{at} is missing or empty", param=at)
    return "\n".join(_part(f"{at}[{place}]", given) for place, given in enumerate(content))


def _part(at: str, given: dict[str, Raw]) -> str:
    part = decode_inner(at, given, PartFields, PART_NEUTRAL)
    if part.type != "text":
        raise Unsupported(f"{at}.type is {part.type[:40]!r}: only text is supported", param=f"{at}.type")
    if part.text is None:
        raise InvalidRequest(f"{at}.text is missing", param=f"{at}.text")
    return part.text
