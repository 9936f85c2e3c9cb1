"""What `/v1/responses` answers: the response object and its output items."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType, field

from penstock.core.types import Failure, FinishReason, Tool, ToolChoice, Usage
from penstock.gateway.wire.errors import full_message
from penstock.gateway.wire.explain import Explained
from penstock.gateway.wire.logprobs import ChatToken
from penstock.gateway.wire.responses import ResponsesCall


class OutputText(Struct, frozen=True, kw_only=True):
    type: str = "output_text"
    text: str
    annotations: tuple[object, ...] = ()
    logprobs: Sequence[ChatToken] = ()


class MessageOutput(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "message"
    status: str
    role: str = "assistant"
    content: Sequence[OutputText]


class ReasoningText(Struct, frozen=True, kw_only=True):
    type: str = "reasoning_text"
    text: str


class ReasoningOutput(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "reasoning"
    status: str
    summary: tuple[object, ...] = ()
    content: Sequence[ReasoningText]


class CallOutput(Struct, frozen=True, kw_only=True):
    """A call. `arguments` is as the model wrote it; `call_id` is what its answer names."""

    id: str
    type: str = "function_call"
    status: str
    call_id: str
    name: str
    arguments: str


Output = MessageOutput | ReasoningOutput | CallOutput


class InputDetails(Struct, frozen=True):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(Struct, frozen=True):
    reasoning_tokens: int


class ResponseUsage(Struct, frozen=True):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseError(Struct, frozen=True):
    code: str
    message: str


class Incomplete(Struct, frozen=True):
    reason: str


class FunctionTool(Struct, frozen=True, kw_only=True):
    type: str = "function"
    name: str
    description: str | None
    parameters: dict[str, object]
    strict: bool | None


class ChosenFunction(Struct, frozen=True, kw_only=True):
    type: str = "function"
    name: str


class TextConfig(Struct, frozen=True):
    format: dict[str, object]


class ReasoningConfig(Struct, frozen=True):
    effort: str | None
    summary: None = None


class ResponseBody(Struct, frozen=True, kw_only=True):
    """The response, at any time of its making: without usage and with no output while it is in progress."""

    id: str
    kind: str = field(name="object", default="response")
    created_at: int
    status: str
    completed_at: int | None = None
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None = None
    model: str
    output: Sequence[Output] = ()
    parallel_tool_calls: bool
    previous_response_id: None = None
    reasoning: ReasoningConfig
    service_tier: str = "default"
    store: bool = False
    temperature: float
    text: TextConfig
    tool_choice: str | ChosenFunction
    tools: Sequence[FunctionTool]
    top_logprobs: int
    top_p: float
    truncation: str = "disabled"
    usage: ResponseUsage | None = None
    metadata: dict[str, str]
    penstock: Explained | UnsetType = UNSET


def begun(call: ResponsesCall) -> ResponseBody:
    """The response before anything of it is made."""
    request = call.request
    return ResponseBody(
        id=call.id,
        created_at=call.created,
        status="in_progress",
        instructions=call.instructions,
        max_output_tokens=request.sampling.max_tokens,
        model=call.model,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        reasoning=ReasoningConfig(request.reasoning_effort),
        temperature=request.sampling.temperature,
        text=TextConfig(_flat(request.response_format)),
        tool_choice=_choice(request.tool_choice),
        tools=tuple(map(_tool, request.tools)),
        top_logprobs=request.sampling.logprobs or 0,
        top_p=request.sampling.top_p,
        metadata=call.metadata,
    )


def status_of(reason: FinishReason) -> tuple[str, Incomplete | None]:
    """The status of what ended so, and why it is not complete."""
    if reason == "length":
        return "incomplete", Incomplete("max_output_tokens")
    if reason == "content_filter":
        return "incomplete", Incomplete("content_filter")
    return "completed", None


def response_usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens,
        InputDetails(usage.cached_tokens, usage.cache_write_tokens),
        usage.completion_tokens,
        OutputDetails(usage.reasoning_tokens),
        usage.total_tokens,
    )


def response_error(failure: Failure) -> ResponseError:
    """OpenAI has a closed list of codes here; the message says the rest."""
    code = "rate_limit_exceeded" if failure.status == 429 else "invalid_prompt" if failure.status < 500 else "server_error"
    return ResponseError(code, full_message(failure))


def _flat(response_format: dict[str, object] | None) -> dict[str, object]:
    if response_format is None:
        return {"type": "text"}
    schema = response_format.get("json_schema")
    return {"type": "json_schema", **schema} if isinstance(schema, dict) else response_format


def _choice(choice: ToolChoice | None) -> str | ChosenFunction:
    if choice is None:
        return "auto"
    return choice.mode if choice.name is None else ChosenFunction(name=choice.name)


def _tool(tool: Tool) -> FunctionTool:
    return FunctionTool(name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict)
