"""The texts of a request that rules read, and the request with other texts in their places."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from penstock.core.types import Message, Request, Tool
from penstock.guard.rule import Text, Where


def texts_of(request: Request) -> list[Text]:
    """Every text that a model may read, in the order of the request: all turns, what tools returned, what tools are said to do.

    Not among them: the names of tools and speakers, the schemas of tools and answers, and prompts of token ids.
    """
    if request.prompt is not None:
        return [Text(text=request.prompt, where="input", principal=request.principal)]
    inputs = [Text(text=text, where="input", principal=request.principal) for text in request.inputs or () if isinstance(text, str)]
    system = _system(request)
    turns = [text for message in request.messages or () for text in _of_message(message, system, request)]
    tools = [
        Text(text=tool.description, where="input", role="developer", principal=request.principal)
        for tool in request.tools
        if tool.description
    ]
    return [*inputs, *turns, *tools]


def with_texts(request: Request, texts: Iterator[str]) -> Request:
    """The request with `texts` in the places of `texts_of(request)`."""
    if request.prompt is not None:
        return replace(request, prompt=next(texts))
    if request.inputs is not None:
        return request if is_unreadable(request) else replace(request, inputs=tuple(next(texts) for _ in request.inputs))
    messages = request.messages and tuple(_with_texts(message, texts) for message in request.messages)
    tools = tuple(_described(tool, texts) for tool in request.tools)
    return replace(request, messages=messages, tools=tools)


def is_unreadable(request: Request) -> bool:
    """Whether it is made of token ids: what they say only a model's own tokenizer knows."""
    return request.prompt_token_ids is not None or any(not isinstance(text, str) for text in request.inputs or ())


def _of_message(message: Message, system: str, request: Request) -> Iterator[Text]:
    where: Where = "tools" if message.role == "tool" else "input"
    told = system if message.role == "user" else ""
    said = Text(text=message.content, where=where, role=message.role, system=told, principal=request.principal)
    if message.content:
        yield said
    if message.reasoning:
        yield replace(said, text=message.reasoning, part="reasoning")
    for call in message.tool_calls:
        yield replace(said, text=call.arguments, part="arguments")


def _system(request: Request) -> str:
    return "\n".join(message.content for message in request.messages or () if message.role in ("system", "developer"))


def _with_texts(message: Message, texts: Iterator[str]) -> Message:
    content = next(texts) if message.content else ""
    reasoning = next(texts) if message.reasoning else ""
    calls = tuple(replace(call, arguments=next(texts)) for call in message.tool_calls)
    return replace(message, content=content, reasoning=reasoning, tool_calls=calls)


def _described(tool: Tool, texts: Iterator[str]) -> Tool:
    return replace(tool, description=next(texts)) if tool.description else tool
