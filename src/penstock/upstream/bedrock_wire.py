"""Bedrock's Converse API: a `Request` as its parameters, its events as those of Anthropic's API, which they resemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.core.errors import Unsupported
from penstock.core.types import Message, ModelCard, Request, Tool, ToolCall, ToolChoice
from penstock.upstream.anthropic_answer import Block, Chunk
from penstock.upstream.anthropic_request import arguments_of
from penstock.upstream.honoured import refuse_beyond
from penstock.upstream.usage import AnthropicUsage

_SAMPLED = ("max_tokens", "temperature", "top_p", "stop")
_FIELDS = ("tools", "tool_choice", "response_format", "continue_final_message", "add_generation_prompt")


def converse(request: Request, card: ModelCard, model: str) -> dict[str, object]:
    """The parameters of a call. Raises Unsupported for what Converse has no word for, InvalidRequest."""
    refuse_beyond(request, what="Bedrock", sampling=_SAMPLED, fields=_FIELDS)
    sampling = request.sampling
    system, turns = _turns(request.messages or ())
    inference: dict[str, object] = {}
    if (most := sampling.max_tokens or card.max_output_tokens) is not None:
        inference["maxTokens"] = most
    if sampling.temperature != 1.0 or "temperature" in request.given:
        inference["temperature"] = float(sampling.temperature)
    if sampling.top_p != 1.0 or "top_p" in request.given:
        inference["topP"] = float(sampling.top_p)
    if sampling.stop:
        inference["stopSequences"] = list(sampling.stop)
    optional = {
        "system": [{"text": text} for text in system],
        "inferenceConfig": inference,
        "toolConfig": _tools(request),
        "outputConfig": _output(request),
    }
    return {"modelId": model, "messages": turns, **{name: value for name, value in optional.items() if value}}


def _turns(messages: Sequence[Message]) -> tuple[list[str], list[dict[str, object]]]:
    """The system's words, and turns that alternate."""
    system: list[str] = []
    turns: list[tuple[str, list[dict[str, object]]]] = []
    for message in messages:
        if message.role in ("system", "developer"):
            system.append(message.content)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        turns[-1][1].extend(_blocks(message))
    return system, [{"role": role, "content": blocks} for role, blocks in turns]


def _blocks(message: Message) -> list[dict[str, object]]:
    if message.role == "tool":
        return [{"toolResult": {"toolUseId": message.tool_call_id or "", "content": [{"text": message.content}]}}]
    text: list[dict[str, object]] = [{"text": message.content}] if message.content or not message.tool_calls else []
    return text + [_used(call) for call in message.tool_calls]


def _used(call: ToolCall) -> dict[str, object]:
    return {"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments_of(call.arguments)}}


def _tools(request: Request) -> dict[str, object] | None:
    if not request.tools:
        return None
    choice = request.tool_choice or ToolChoice()
    if choice.mode == "none":
        raise Unsupported(f"{request.model!r} is served by Bedrock, which cannot forbid tools", hint="leave out tools", param="tool_choice")
    config: dict[str, object] = {"tools": [{"toolSpec": _tool(tool)} for tool in request.tools]}
    if choice.name is not None:
        config["toolChoice"] = {"tool": {"name": choice.name}}
    elif choice.mode == "required":
        config["toolChoice"] = {"any": {}}
    return config


def _tool(tool: Tool) -> dict[str, object]:
    spec: dict[str, object] = {"name": tool.name, "inputSchema": {"json": tool.parameters or {"type": "object", "properties": {}}}}
    return spec if tool.description is None else {**spec, "description": tool.description}


def _output(request: Request) -> dict[str, object] | None:
    wanted = request.response_format or {}
    kind = wanted.get("type", "text")
    if kind == "text":
        return None
    named = wanted.get("json_schema")
    if kind != "json_schema" or not isinstance(named, dict):
        raise Unsupported(
            f"{request.model!r} does not support the response_format {kind!r}", hint="send a json_schema", param="response_format"
        )
    schema = {"name": str(named.get("name", "answer")), "schema": msgspec.json.encode(named.get("schema", {})).decode()}
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}


def chunks_of(event: Mapping[str, Any]) -> list[Chunk]:
    """One event of ConverseStream."""
    ((kind, body),) = event.items()
    index = body.get("contentBlockIndex", 0)
    if kind == "contentBlockStart" and "toolUse" in body["start"]:
        used = body["start"]["toolUse"]
        block = Block(type="tool_use", id=used["toolUseId"], name=used["name"])
        return [Chunk(type="content_block_start", index=index, content_block=block)]
    if kind == "contentBlockDelta":
        return [Chunk(type="content_block_delta", index=index, delta=_delta(body["delta"]))]
    if kind == "contentBlockStop":
        return [Chunk(type="content_block_stop", index=index)]
    if kind == "messageStop":
        return [Chunk(type="message_delta", delta=Block(stop_reason=body["stopReason"]))]
    if kind == "metadata":
        return [Chunk(type="message_delta", usage=_usage(body.get("usage"))), Chunk(type="message_stop")]
    return []


def whole_of(body: Mapping[str, Any]) -> Chunk:
    """The answer of Converse."""
    content = [_block(block) for block in body["output"]["message"]["content"]]
    return Chunk(type="message", content=content, stop_reason=body["stopReason"], usage=_usage(body.get("usage")))


def _delta(delta: Mapping[str, Any]) -> Block:
    if "text" in delta:
        return Block(type="text_delta", text=delta["text"])
    if "toolUse" in delta:
        return Block(type="input_json_delta", partial_json=delta["toolUse"]["input"])
    return Block(type="thinking_delta", thinking=delta.get("reasoningContent", {}).get("text", ""))


def _block(block: Mapping[str, Any]) -> Block:
    if "toolUse" in block:
        used = block["toolUse"]
        return Block(type="tool_use", id=used["toolUseId"], name=used["name"], input=used["input"])
    if "reasoningContent" in block:
        return Block(type="thinking", thinking=block["reasoningContent"].get("reasoningText", {}).get("text", ""))
    return Block(type="text", text=block.get("text", ""))


def _usage(body: Mapping[str, Any] | None) -> AnthropicUsage | None:
    if body is None:
        return None
    return AnthropicUsage(
        input_tokens=body.get("inputTokens"),
        output_tokens=body.get("outputTokens"),
        cache_read_input_tokens=body.get("cacheReadInputTokens"),
        cache_creation_input_tokens=body.get("cacheWriteInputTokens"),
    )
