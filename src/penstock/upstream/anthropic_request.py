"""A `Request` as the body of Anthropic's Messages API; Vertex takes the same with its version inside."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.core.errors import InvalidRequest, Unsupported
from penstock.core.types import Message, ModelCard, Request, Tool, ToolCall, ToolChoice
from penstock.upstream.honoured import refuse_beyond
from penstock.upstream.refusal import UNREADABLE

MAX_TOKENS = 4096  # of an answer where neither the request nor the model says
MAX_TEMPERATURE = 1.0
_SAMPLED = ("max_tokens", "temperature", "top_k", "top_p", "stop")
_FIELDS = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "continue_final_message",
           "add_generation_prompt")  # fmt: skip
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}


def messages_body(request: Request, card: ModelCard) -> dict[str, object]:
    """All but the model and whether to stream. Raises Unsupported for what Anthropic has no word for, InvalidRequest."""
    refuse_beyond(request, what="Anthropic's API", sampling=_SAMPLED, fields=_FIELDS)
    sampling = request.sampling
    if sampling.temperature > MAX_TEMPERATURE:
        message = f"temperature is {sampling.temperature:g}; {request.model!r} takes from 0 to {MAX_TEMPERATURE:g}"
        raise Unsupported(message, hint="lower it", param="temperature")
    system, turns = _turns(request.messages or ())
    body: dict[str, object] = {"max_tokens": sampling.max_tokens or card.max_output_tokens or MAX_TOKENS, "messages": turns}
    optional = {
        "system": system or None,
        "temperature": sampling.temperature if sampling.temperature != 1.0 or "temperature" in request.given else None,
        "top_p": sampling.top_p if sampling.top_p != 1.0 or "top_p" in request.given else None,
        "top_k": sampling.top_k,
        "stop_sequences": sampling.stop or None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _choice(request) if request.tools else None,
        "output_config": _output(request),
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    return body


def _turns(messages: Sequence[Message]) -> tuple[str, list[dict[str, object]]]:
    """The system's words, wherever they stood, and the turns: answers of tools are the user's, and go together."""
    system: list[str] = []
    turns: list[dict[str, object]] = []
    results: list[dict[str, object]] | None = None  # blocks of the user's turn that answers the calls before it
    for message in messages:
        if message.role == "tool":
            if results is None:
                results = []
                turns.append({"role": "user", "content": results})
            results.append({"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content})
        elif message.role in ("system", "developer"):
            system.append(message.content)
        elif message.role == "user" and results is not None:
            results.append({"type": "text", "text": message.content})
        else:
            results = None
            turns.append({"role": message.role, "content": _calling(message) if message.tool_calls else message.content})
    return "\n\n".join(system), turns


def _calling(message: Message) -> list[dict[str, object]]:
    blocks: list[dict[str, object]] = [{"type": "text", "text": message.content}] if message.content else []
    return blocks + [_used(call) for call in message.tool_calls]


def _used(call: ToolCall) -> dict[str, object]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call.arguments)}


def arguments_of(text: str) -> dict[str, object]:
    """A call's arguments, which some dialects want as an object. Raises InvalidRequest."""
    try:
        found = msgspec.json.decode(text or "{}")
    except UNREADABLE:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest(f"a tool call has the arguments {text[:40]!r}, which are no JSON object", param="messages")
    return found


def _tool(tool: Tool) -> dict[str, object]:
    optional = {"description": tool.description, "strict": tool.strict}
    schema = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, "input_schema": schema, **{name: value for name, value in optional.items() if value is not None}}


def _choice(request: Request) -> dict[str, object] | None:
    choice = request.tool_choice or ToolChoice()
    chosen: dict[str, object] = {"type": {"auto": "auto", "none": "none", "required": "any"}[choice.mode]}
    if choice.name is not None:
        chosen = {"type": "tool", "name": choice.name}
    if request.parallel_tool_calls is False and choice.mode != "none":
        chosen["disable_parallel_tool_use"] = True
    return None if chosen == {"type": "auto"} else chosen


def _output(request: Request) -> dict[str, object] | None:
    output: dict[str, object] = {}
    if request.reasoning_effort not in (None, "none"):
        output["effort"] = EFFORTS.get(str(request.reasoning_effort), request.reasoning_effort)
    wanted = request.response_format or {}
    kind = wanted.get("type", "text")
    if kind == "json_schema" and isinstance(named := wanted.get("json_schema"), dict):
        output["format"] = {"type": "json_schema", "schema": named.get("schema", {})}
    elif kind != "text":
        hint = "send a json_schema"
        raise Unsupported(f"{request.model!r} does not support the response_format {kind!r}", hint=hint, param="response_format")
    return output or None
