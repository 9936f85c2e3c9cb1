"""The fields of `/v1/messages` and what is inside them, and what of Anthropic's format is known and not honoured."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Raw, Struct

from penstock.gateway.wire.call import BodyFields
from penstock.gateway.wire.fields import Neutral


class CacheControl(Struct, kw_only=True, forbid_unknown_fields=True):
    """A wish to have the prompt cached up to here: taken as a hint, for prefixes are cached without being asked."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class PromptFields(BodyFields, kw_only=True):
    """What a prompt is made of, the same for an answer and for counting tokens."""

    messages: list[dict[str, Raw]] | None = None
    system: str | list[dict[str, Raw]] | None = None
    tools: list[dict[str, Raw]] | None = None
    tool_choice: dict[str, Raw] | None = None
    output_config: dict[str, Raw] | None = None
    cache_control: CacheControl | None = None


class CountFields(PromptFields, kw_only=True):
    """Every field that `/v1/messages/count_tokens` honours."""


class MessagesFields(PromptFields, kw_only=True):
    """Every field that `/v1/messages` honours."""

    max_tokens: int | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


class TurnFields(Struct, kw_only=True):
    role: str
    content: str | list[dict[str, Raw]] | None = None


class TextFields(Struct, kw_only=True):
    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


class ToolUseFields(Struct, kw_only=True):
    type: Literal["tool_use"]
    id: str
    name: str
    input: Raw
    cache_control: CacheControl | None = None


class ToolResultFields(Struct, kw_only=True):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[dict[str, Raw]] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


class ThinkingFields(Struct, kw_only=True):
    """Earlier thinking, which clients send back. Nobody checks the signature."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingFields(Struct, kw_only=True):
    """Thinking that only Anthropic can read: it is dropped."""

    type: Literal["redacted_thinking"]
    data: str


class ToolFields(Struct, kw_only=True):
    name: str
    input_schema: dict[str, object]
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None


class ChoiceFields(Struct, kw_only=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class FormatFields(Struct, kw_only=True):
    type: Literal["json_schema"]
    schema: dict[str, object]


class OutputFields(Struct, kw_only=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: dict[str, Raw] | None = None


Block = TextFields | ToolUseFields | ToolResultFields | ThinkingFields | RedactedThinkingFields

BLOCKS: Mapping[str, type[Block]] = MappingProxyType(
    {
        "text": TextFields,
        "tool_use": ToolUseFields,
        "tool_result": ToolResultFields,
        "thinking": ThinkingFields,
        "redacted_thinking": RedactedThinkingFields,
    }
)

COUNT_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        "thinking": Neutral("a budget for thinking is not passed on to models; output_config.effort is", ({"type": "disabled"},)),
        "speed": Neutral("there is one speed", ("standard",)),
        "mcp_servers": Neutral("MCP servers are the client's to call", ([],)),
        "context_management": Neutral("the conversation is passed on as it is"),
    }
)

MESSAGES_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        **COUNT_NEUTRAL,
        "container": Neutral("code is not run here"),
        "diagnostics": Neutral("they are Anthropic's own"),
        "inference_geo": Neutral("the config says where models run"),
        "service_tier": Neutral("there is one service tier", ("auto", "standard_only")),
    }
)

MESSAGES_RECORDED = ("metadata",)

BLOCK_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        "citations": Neutral("citations are not supported", ([], {"enabled": False})),
        "caller": Neutral("tools are called by the model alone", ({"type": "direct"},)),
        "toolset_name": Neutral("there are no sets of tools"),
    }
)

TOOL_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        "allowed_callers": Neutral("tools are called by the model alone", (["direct"],)),
        "defer_loading": Neutral("every tool is in the prompt", (False,)),
        "eager_input_streaming": Neutral("calls are streamed as the model writes them", (True, False)),
        "input_examples": Neutral("they are not passed on to models", ([],)),
    }
)
