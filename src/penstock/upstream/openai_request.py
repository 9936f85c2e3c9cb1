"""A `Request` as the body that OpenAI-compatible servers take.

A field that the client left unset is left out: the server's own default holds.
"""

from __future__ import annotations

import hashlib

import msgspec

from penstock.core.errors import Unsupported
from penstock.core.types import Message, Request, Sampling, Tool, ToolChoice

# Sent under the same name where they differ from their defaults; beyond OpenAI's own they are vLLM's, which others took over.
_SAMPLED = {
    name: default
    for name, default in msgspec.structs.asdict(Sampling()).items()
    if name not in ("max_tokens", "logprobs", "prompt_logprobs")
}
_TEMPLATE = {"add_generation_prompt": True, "continue_final_message": False, "chat_template_kwargs": {}}
_encode = msgspec.json.Encoder().encode


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """Where servers differ: the name of max_tokens, whether each chunk may count, whether vLLM's own fields are known."""

    max_tokens: str = "max_tokens"
    counts_each_chunk: bool = False
    extended: bool = False


def manners(url: str, owned_by: str = "") -> Manners:
    """What is known of a server by its address and by what it says of its models."""
    ours = owned_by in ("vllm", "penstock")
    openai = any(host in url for host in ("api.openai.com", ".openai.azure.com"))  # reasoning models there refuse max_tokens
    return Manners(
        max_tokens="max_completion_tokens" if openai else "max_tokens",
        counts_each_chunk=ours or owned_by == "sglang",
        extended=ours,
    )


def path_of(request: Request) -> str:
    if request.inputs is not None:
        return "/embeddings"
    return "/completions" if request.messages is None else "/chat/completions"


def encode(request: Request, model: str, manners: Manners) -> bytes:
    """The body of `request` for the server's `model`. Raises Unsupported for what such servers do not offer."""
    if request.inputs is not None:
        return _encode(_embedding(request, model))
    _refuse(request)
    body: dict[str, object] = {"model": model}
    if request.messages is None:
        body["prompt"] = request.prompt_token_ids if request.prompt is None else request.prompt
    else:
        body["messages"] = [_assistant(message) if message.tool_calls or message.reasoning else message for message in request.messages]
    if request.streams:
        body["stream"] = True
        options = {"include_usage": True}
        if manners.counts_each_chunk and request.n == 1:  # vLLM counts each choice alone in these
            options["continuous_usage_stats"] = True
        body["stream_options"] = options
    _sampling(body, request, manners)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice(request.tool_choice)
    _extras(body, request, manners)
    return _encode(body)


def _sampling(body: dict[str, object], request: Request, manners: Manners) -> None:
    sampling = request.sampling
    for name, default in _SAMPLED.items():
        value = getattr(sampling, name)
        if value != default or name in request.given:
            body[name] = value
    if sampling.max_tokens is not None:
        body["max_tokens" if request.messages is None else manners.max_tokens] = sampling.max_tokens
    if sampling.logprobs is None:
        return
    if request.messages is None:
        body["logprobs"] = sampling.logprobs
    else:
        body["logprobs"] = True
        if sampling.logprobs:
            body["top_logprobs"] = sampling.logprobs


def _extras(body: dict[str, object], request: Request, manners: Manners) -> None:
    if request.n != 1:
        body["n"] = request.n
    for name in ("parallel_tool_calls", "response_format", "reasoning_effort", "truncate_prompt_tokens"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.messages is not None:
        body.update({name: value for name, default in _TEMPLATE.items() if (value := getattr(request, name)) != default})
        if request.add_special_tokens and manners.extended:
            body["add_special_tokens"] = True
    elif not request.add_special_tokens:
        body["add_special_tokens"] = False
    if request.tenant and manners.extended:
        body["cache_salt"] = hashlib.sha256(request.tenant.encode()).hexdigest()[:32]  # says nothing of who it is


def _embedding(request: Request, model: str) -> dict[str, object]:
    body: dict[str, object] = {"model": model, "input": request.inputs, "encoding_format": "float"}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return body


def _assistant(message: Message) -> dict[str, object]:
    """A turn that calls tools or was thought about; reasoning goes by the name that most servers read."""
    body: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls
        ]
    if message.reasoning:
        body["reasoning_content"] = message.reasoning
    return body if message.name is None else {**body, "name": message.name}


def _tool(tool: Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> object:
    return choice.mode if choice.name is None else {"type": "function", "function": {"name": choice.name}}


def _refuse(request: Request) -> None:
    """What is answered from the prompt's tokens, which only an engine of our own tells."""
    asked = {"echo": request.echo, "prompt_logprobs": request.sampling.prompt_logprobs is not None}
    for param, is_asked in asked.items():
        if is_asked:
            message = f"{request.model!r} does not support {param}: it is served by another server"
            raise Unsupported(message, hint="leave it out", param=param)
