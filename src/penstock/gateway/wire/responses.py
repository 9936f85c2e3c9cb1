"""The body of `/v1/responses`. Nothing is kept between requests: the input is the whole conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec import Raw, Struct, structs

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import Request, Sampling, Tool, ToolChoice
from penstock.gateway.wire.call import BodyFields, Call, Context, StreamOptions
from penstock.gateway.wire.decode import decode_inner
from penstock.gateway.wire.fields import Neutral
from penstock.gateway.wire.responses_input import read_input
from penstock.gateway.wire.tools import (
    FORMATS,
    FunctionFields,
    SchemaFields,
    check_effort,
    make_tool,
    named_choice,
    plain_choice,
    schema_format,
    unique_tools,
)

LOGPROBS = "message.output_text.logprobs"
_TEXT_NEUTRAL: Mapping[str, Neutral] = MappingProxyType({"verbosity": Neutral("it is not passed on to models", ("medium",))})
_REASONING_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        "summary": Neutral("reasoning is not summed up", ("auto",)),
        "generate_summary": Neutral("reasoning is not summed up", ("auto",)),
        "context": Neutral("it is not passed on to models", ("auto",)),
        "mode": Neutral("it is not passed on to models"),
    }
)
_TOOL_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {"defer_loading": Neutral("tools are always loaded", (False,)), "allowed_callers": Neutral("only models call tools", (["direct"],))}
)


class ResponsesFields(BodyFields, kw_only=True):
    """Every field that `/v1/responses` honours."""

    input: str | list[dict[str, Raw]] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    tools: list[dict[str, Raw]] | None = None
    tool_choice: str | dict[str, Raw] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Raw] | None = None
    reasoning: dict[str, Raw] | None = None
    metadata: dict[str, str] | None = None  # comes back in the response
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class FunctionToolFields(FunctionFields, kw_only=True):
    """A tool as responses describe it: flat."""

    type: str


class NamedChoiceFields(Struct, kw_only=True):
    type: str
    name: str | None = None


class TextFields(Struct, kw_only=True):
    format: dict[str, Raw] | None = None


class FlatFormatFields(Struct, kw_only=True):
    """A format as responses describe it: flat."""

    type: str
    name: str | None = None
    schema: dict[str, object] | None = None
    description: str | None = None
    strict: bool | None = None


class ReasoningFields(Struct, kw_only=True):
    effort: str | None = None


class ResponsesCall(Call, frozen=True, kw_only=True):
    """One HTTP request for a response, with what the response repeats of it."""

    instructions: str | None
    metadata: dict[str, str]

    @property
    def request(self) -> Request:
        return self.requests[0]


def responses_call(fields: ResponsesFields, context: Context) -> ResponsesCall:
    """Check the fields against each other and make the call. Raises InvalidRequest, Unsupported."""
    _check_stream(fields)
    tools = _tools(fields.tools or ())
    request = Request(
        id="",
        model=context.model,
        messages=read_input(fields.instructions, fields.input),
        add_special_tokens=False,  # a template writes its own
        sampling=_sampling(fields, context.defaults),
        tools=tools,
        tool_choice=_choice(fields.tool_choice, tools),
        parallel_tool_calls=fields.parallel_tool_calls if tools else None,
        response_format=_format(fields.text),
        reasoning_effort=_effort(fields.reasoning),
        streams=bool(fields.stream),
        principal=context.principal,
        tenant=context.tenant(),
    )
    answer_id = f"resp_{context.request_id}"
    return ResponsesCall(
        id=answer_id,
        model=context.model,
        created=context.created,
        requests=context.named((request,), answer_id, fields),
        stream=bool(fields.stream),
        explain=context.explains(fields, (request,)),
        instructions=fields.instructions,
        metadata=fields.metadata or {},
    )


def _sampling(fields: ResponsesFields, defaults: Sampling) -> Sampling:
    most = defaults.max_tokens if fields.max_output_tokens is None else fields.max_output_tokens
    return structs.replace(
        defaults,
        temperature=defaults.temperature if fields.temperature is None else fields.temperature,
        top_p=defaults.top_p if fields.top_p is None else fields.top_p,
        max_tokens=most,
        min_tokens=defaults.min_tokens if most is None else min(defaults.min_tokens, most),
        logprobs=_logprobs(fields),
    )


def _logprobs(fields: ResponsesFields) -> int | None:
    for place, wanted in enumerate(fields.include or ()):
        if wanted != LOGPROBS:
            at = f"include[{place}]"
            raise Unsupported(f"{at} is {wanted[:60]!r}, which is not there to include", hint=f"only {LOGPROBS} goes", param=at)
    if fields.include:
        return fields.top_logprobs or 0
    if fields.top_logprobs:
        raise InvalidRequest("top_logprobs goes only with logprobs", hint=f"include {LOGPROBS}", param="top_logprobs")
    return None


def _tools(given: Sequence[dict[str, Raw]]) -> tuple[Tool, ...]:
    tools = []
    for place, raw in enumerate(given):
        at = f"tools[{place}]"
        _only_functions(at, raw)
        tools.append(make_tool(at, decode_inner(at, raw, FunctionToolFields, _TOOL_NEUTRAL)))
    return unique_tools(tools)


def _choice(given: str | dict[str, Raw] | None, tools: Sequence[Tool]) -> ToolChoice | None:
    if not isinstance(given, dict):
        return plain_choice(given, tools)
    _only_functions("tool_choice", given)
    fields = decode_inner("tool_choice", given, NamedChoiceFields)
    if fields.name is None:
        raise InvalidRequest("tool_choice.name is missing", param="tool_choice.name")
    return named_choice(fields.name, tools)


def _only_functions(at: str, given: Mapping[str, Raw]) -> None:
    """Said of the type alone: a built-in tool has fields of its own, and they are not what is wrong."""
    kind = bytes(given.get("type", Raw(b'""'))).decode().strip('"')
    if kind != "function":
        raise Unsupported(f"{at}.type is {kind[:40]!r}: only functions are tools here", param=f"{at}.type")


def _format(given: dict[str, Raw] | None) -> dict[str, object] | None:
    """In chat's shape, as a `Request` has it."""
    text = decode_inner("text", given, TextFields, _TEXT_NEUTRAL) if given is not None else TextFields()
    if text.format is None:
        return None
    at = "text.format"
    fields = decode_inner(at, text.format, FlatFormatFields)
    if fields.type not in FORMATS:
        raise InvalidRequest(f"{at}.type is {fields.type[:40]!r}", hint=f"one of {', '.join(FORMATS)}", param=f"{at}.type")
    if fields.type != "json_schema":
        return None if fields.type == "text" else {"type": fields.type}
    schema = SchemaFields(name=fields.name or "", schema=fields.schema, description=fields.description, strict=fields.strict)
    return schema_format(at, schema)


def _effort(given: dict[str, Raw] | None) -> str | None:
    if given is None:
        return None
    fields = decode_inner("reasoning", given, ReasoningFields, _REASONING_NEUTRAL)
    return check_effort("reasoning.effort", fields.effort)


def _check_stream(fields: ResponsesFields) -> None:
    options = fields.stream_options
    if options is None:
        return
    if not fields.stream:
        raise InvalidRequest("stream_options go only with stream", hint="send stream true or leave them out", param="stream_options")
    for name in options.__struct_fields__:
        if getattr(options, name):
            raise Unsupported(f"stream_options.{name} is not honoured here", hint="leave it out", param=f"stream_options.{name}")
